"""Samples become candidates of their own prompt, and candidates become demonstrations."""

import pytest
import torch
from torch import Tensor, nn

from tasks.language.batches import TokenBatch
from tasks.rejection_sampling.config import SamplesConfig
from tasks.rejection_sampling.pick import Candidate
from tasks.rejection_sampling.task import demonstrations, group, sample, scores_of
from tests.unit import tiny_models as tiny

CONFIG = SamplesConfig(
    samples_per_prompt=2, max_prompts=None, temperature=1.0, prompt_tokens=12, response_tokens=4, seed=5
)


class SumOfIds(nn.Module):
    """A planted reward model: the sum of a response's token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def scores(self, batch: TokenBatch) -> Tensor:
        columns = torch.arange(batch.input_ids.shape[1])
        response = (columns >= batch.prompt_lengths[:, None]) & (columns < batch.lengths[:, None])
        return (batch.input_ids * response).sum(dim=1).float()


def test_every_response_is_scored_in_its_own_place_whatever_the_micro_batches() -> None:
    prompts, responses = [[3, 4], [3], [5, 6, 7]], [[9, 1], [8, 8, 8], [2]]
    for budget in (4, 1000):
        found = scores_of(SumOfIds(), prompts, responses, 0, tiny.runtime(tokens_per_microbatch=budget))  # type: ignore[arg-type]
        assert found == [10.0, 24.0, 2.0]


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


def test_samples_follow_their_seed() -> None:
    prompts = [[3, 5, 8], [3, 5, 9]]

    def drawn(seed: int) -> list[list[int]]:
        changed = CONFIG.model_copy(update={"seed": seed})
        return sample(tiny.policy(), tiny.tokenizer(), prompts * 6, changed, tiny.runtime())

    assert drawn(5) == drawn(5) != drawn(6)
    assert all(len(response) <= 4 for response in drawn(5))


@pytest.mark.parametrize("few", [0, 1])
def test_one_sample_a_prompt_is_no_choice(few: int) -> None:
    with pytest.raises(ValueError, match="samples_per_prompt"):
        SamplesConfig.model_validate(CONFIG.model_dump() | {"samples_per_prompt": few})
