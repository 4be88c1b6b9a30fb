"""Samples become candidates of their own prompt, and candidates become demonstrations."""

import pytest

from tasks.rejection_sampling.config import SamplesConfig
from tasks.rejection_sampling.pick import Candidate
from tasks.rejection_sampling.task import demonstrations, group
from tests.unit import tiny_models as tiny

CONFIG = SamplesConfig(
    samples_per_prompt=2, max_prompts=None, temperature=1.0, prompt_tokens=12, response_tokens=4, seed=5
)


def test_candidates_lie_with_their_prompt_and_only_ended_ones_with_words_are_usable() -> None:
    words = {word: index for index, word in enumerate(tiny.WORDS)}
    drawn = [[words["cat"], tiny.EOS], [words["red"], words["big"]], [tiny.EOS], [words["blue"], tiny.EOS]]
    first, second = group(tiny.prompts(2), drawn, [1.0, 2.0, 3.0, 4.0], tiny.tokenizer(), 2)
    assert [(c.text.strip(), c.score, c.usable) for c in first] == [("cat", 1.0, True), ("red big", 2.0, False)]
    assert [(c.text.strip(), c.score, c.usable) for c in second] == [("", 3.0, False), ("blue", 4.0, True)]


def test_prompts_without_a_usable_response_are_left_out() -> None:
    prompts = tiny.prompts(2)
    found = demonstrations(prompts, [None, Candidate("red", 1.0, usable=True)], "best")
    assert [(item.prompt.prompt_id, item.response, item.labeler_id) for item in found] == [("p1", "red", "best")]


@pytest.mark.parametrize("few", [0, 1])
def test_one_sample_a_prompt_is_no_choice(few: int) -> None:
    with pytest.raises(ValueError, match="samples_per_prompt"):
        SamplesConfig.model_validate(CONFIG.model_dump() | {"samples_per_prompt": few})
