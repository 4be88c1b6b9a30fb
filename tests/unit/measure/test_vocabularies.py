"""A judge reads another policy's text in its own tokens."""

from collections.abc import Sequence

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from tasks.language.models import ScalarModel
from tasks.measure.scores import RewardModelJudge
from tasks.measure.vocabularies import ReadsAnew, same_vocabulary
from tasks.records.records import Prompt
from tasks.results.judge import Answers
from tests.unit import tiny_models as tiny

import torch  # isort: skip


def shuffled() -> PreTrainedTokenizerFast:
    """The same words under other ids."""
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(reversed(tiny.WORDS))}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def answers(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt], texts: list[str], finished: list[bool]
) -> Answers:
    eos = [int(tokenizer.eos_token_id)]
    return Answers(
        prompts=[tokenizer(prompt.text)["input_ids"] for prompt in prompts],
        tokens=[tokenizer(text)["input_ids"] + (eos if end else []) for text, end in zip(texts, finished, strict=True)],
        texts=texts,
        finished=finished,
    )


def test_equal_words_under_other_ids_are_another_vocabulary() -> None:
    assert same_vocabulary(tiny.tokenizer(), tiny.tokenizer())
    assert not same_vocabulary(tiny.tokenizer(), shuffled())


def test_the_scores_are_those_of_the_same_text_in_the_judges_tokens() -> None:
    model = ScalarModel.from_policy(tiny.policy(1), torch.Generator().manual_seed(2))
    judge = RewardModelJudge("reward_model", model, 0, tiny.runtime(tokens_per_microbatch=1000))
    prompts, texts, finished = tiny.prompts(3), ["the cat is red .", "is big", "small"], [True, False, True]
    own = judge.score(prompts, answers(tiny.tokenizer(), prompts, texts, finished))
    foreign = answers(shuffled(), prompts, texts, finished)
    assert ReadsAnew(judge, tiny.tokenizer(), 8).score(prompts, foreign) == pytest.approx(own, abs=1e-6)
    assert judge.score(prompts, foreign) != pytest.approx(own, abs=1e-2)  # read as they stand, they are another text
