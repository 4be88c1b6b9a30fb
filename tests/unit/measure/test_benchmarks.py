import math

import pytest
import torch

from tasks.measure.benchmarks import (
    Subject,
    choose,
    document_losses,
    matches,
    run_benchmarks,
    sequence_logprobs,
)
from tasks.records.records import BenchmarkItem, Document
from tests.unit import tiny_models
from tests.unit.results.sheets import evaluation_config

CONFIG = evaluation_config(context_tokens=20, benchmark_answer_tokens=4)
IDS = {word: index for index, word in enumerate(tiny_models.WORDS)}


def subject(**runtime: int) -> Subject:
    return Subject(tiny_models.policy(), tiny_models.tokenizer(), tiny_models.runtime(**runtime))


def plain_logprob(words: list[str], scored: int) -> float:
    """Sum of the log-probabilities of the last ``scored`` words, by one forward pass without any of our code."""
    ids = torch.tensor([[IDS[word] for word in words]])
    with torch.no_grad():
        logprobs = tiny_models.policy()(ids).logits[0].log_softmax(-1)
    return sum(logprobs[at - 1, ids[0, at]].item() for at in range(len(words) - scored, len(words)))


def choice(item_id: str, context: str, choices: list[str], answer: int, task: str = "pick") -> BenchmarkItem:
    return BenchmarkItem(item_id=item_id, task=task, form="choice", context=context, choices=choices, answer=answer)


@pytest.mark.point(63)
def test_length_at_constant_value_per_token_leaves_the_rank() -> None:
    assert choose([-2.0, -3.0, -1.5], [1, 2, 1], "per_token") == choose([-2.0, -6.0, -1.5], [1, 4, 1], "per_token")
    assert choose([-2.0, -3.0], [1, 2], "per_token") == 1
    assert choose([-2.0, -3.0], [1, 2], "sum") == 0
    assert choose([-1.0, -1.0], [1, 1], "per_token") == 0


def test_choices_are_scored_as_a_plain_forward_pass_does() -> None:
    options = ["red", "the cat", "blue small"]
    words = [option.split() for option in options]
    totals = [plain_logprob(["the", *option], len(option)) for option in words]
    best = max(range(3), key=lambda index: totals[index] / len(words[index]))
    shortest = max(range(3), key=lambda index: totals[index])
    assert best != shortest  # or the two normalisations could not be told apart
    items = [choice(f"i{answer}", "the", options, answer) for answer in range(3)]
    for normalisation, winner in (("per_token", best), ("sum", shortest)):
        config = evaluation_config(context_tokens=20, benchmark_normalisation=normalisation)
        found = run_benchmarks(subject(), items, config)["pick"]
        assert found.correct == [int(answer == winner) for answer in range(3)]
        assert found.item_ids == ["i0", "i1", "i2"]


def test_a_choice_is_scored_without_eos() -> None:
    red, small = (plain_logprob(["the", word], 1) for word in ("red", "small"))
    ended_red, ended_small = (plain_logprob(["the", word, "<eos>"], 2) for word in ("red", "small"))
    assert red > small and ended_red < ended_small  # or EOS would not be noticed
    assert run_benchmarks(subject(), [choice("i", "the", ["red", "small"], 0)], CONFIG)["pick"].correct == [1]


def test_logprobs_do_not_depend_on_the_micro_batch() -> None:
    prompts = [[3, 5], [4], [3, 4, 6, 7], [9, 8]]
    responses = [[7, 8], [9, 10, 11, 1], [12], [6, 6, 1]]
    small = sequence_logprobs(subject(tokens_per_microbatch=1), prompts, responses)
    assert sequence_logprobs(subject(), prompts, responses) == pytest.approx(small, abs=1e-5)


@pytest.mark.point(62)
def test_exact_answers_come_from_greedy_decoding() -> None:
    model, context = tiny_models.policy(), "the cat is"
    ids = [IDS[word] for word in context.split()]
    for _ in range(CONFIG.benchmark_answer_tokens):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    answer = [tiny_models.WORDS[i] for i in ids[3:]]
    said = answer[: answer.index("<eos>")] if "<eos>" in answer else answer
    assert said, "choose another context: the model says nothing"
    items = [
        BenchmarkItem(item_id="a", task="say", form="exact", context=context, references=[" ".join(said)]),
        BenchmarkItem(item_id="b", task="say", form="exact", context=context, references=["q q q", said[0]]),
        BenchmarkItem(item_id="c", task="say", form="exact", context=context, references=["q q q"]),
    ]
    assert run_benchmarks(subject(), items, CONFIG)["say"].correct == [1, 1, 0]


def test_tasks_of_both_forms_keep_the_order_of_their_items() -> None:
    exact = BenchmarkItem(item_id="e", task="say", form="exact", context="the", references=["?"])
    items = [choice("1", "the", ["red", "blue"], 0), exact, choice("2", "is", ["red", "blue"], 0)]
    found = run_benchmarks(subject(), items, CONFIG)
    assert list(found) == ["pick", "say"]
    assert found["pick"].item_ids == ["1", "2"]
    assert run_benchmarks(subject(), [], CONFIG) == {}


@pytest.mark.parametrize(
    ("answer", "references", "right"),
    [
        ("34 .", ["34"], True),
        ("Paris, of course", ["paris"], True),
        ("  the   Eiffel tower\nand more", ["Eiffel tower", "the eiffel TOWER"], True),
        ("\nParis", ["Paris"], False),  # cut at the first newline: an empty answer
        ("the Eiffel\ntower", ["the Eiffel tower"], False),
        ("parisian", ["paris"], False),
        ("", ["34"], False),
        ("anything", ["  "], False),
        ("3", ["34"], False),
    ],
)
@pytest.mark.point(62)
def test_answers_match_by_whole_words_from_the_start(answer: str, references: list[str], right: bool) -> None:
    assert matches(answer, references) is right


def test_documents_are_read_from_eos_to_eos() -> None:
    documents = [Document(text="the cat is big ."), Document(text="red red")]
    found = document_losses(subject(), documents, CONFIG)
    assert found.tokens == [6, 3]
    assert found.nll == pytest.approx(
        [
            -plain_logprob(["<eos>", *["the", "cat", "is", "big", "."], "<eos>"], 6),
            -plain_logprob(["<eos>", "red", "red", "<eos>"], 3),
        ],
        abs=1e-4,
    )


def test_a_long_document_is_cut_to_the_context() -> None:
    config = evaluation_config(context_tokens=4)
    found = document_losses(subject(), [Document(text="the cat is big . red")], config)
    assert found.tokens == [3]
    assert found.nll == pytest.approx([-plain_logprob(["<eos>", "the", "cat", "is"], 3)], abs=1e-4)
    assert math.isfinite(found.nll[0])
