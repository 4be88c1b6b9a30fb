"""The model in memory must say what the harness's own wrapper says of the same weights."""

from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tasks.engine.errors import ConfigError, DataError, ModelError
from tasks.measure.suite.language_model import InMemoryModel
from tests.unit.measure.suite import tiny

PAIRS = [
    ("Where did the cat sit? A:", " on the mat"),
    ("Where did the cat sit? A:", " on the red mat, of course"),
    ("Passage: two men walk.\nQuestion: is it so?\nAnswer:", " Yes"),
    ("Passage: two men walk.\nQuestion: is it so?\nAnswer:", " No"),
    ("a context that ends in spaces  ", "and a word"),
    ("", "The teacher told the pupil that she was late."),
    ("two men " * 200, "walk along a street"),  # longer than the context: its beginning goes
]
PROMPTS = [
    ("Where did the cat sit? A:", {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}),
    ("Passage: two men walk.\n", {"until": [" a", "e"], "max_gen_toks": 20, "do_sample": False}),
    ("two men " * 200, {"until": [], "max_gen_toks": 12, "do_sample": False}),
    ("how many?", {"until": ["\n"], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0, "top_p": 0.9}),
]


def requests(kind: str, arguments: list[Any]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=given, idx=0, metadata=("task", row, 1))
        for row, given in enumerate(arguments)
    ]


@pytest.fixture(scope="module")
def theirs() -> HFLM:
    return HFLM(
        pretrained=tiny.model(), tokenizer=tiny.tokenizer(), batch_size=2, max_length=tiny.CONTEXT, device="cpu"
    )


@pytest.mark.parametrize("tokens_per_microbatch", [60, 10_000])
def test_loglikelihoods_equal_the_harness_s_own(theirs: HFLM, tokens_per_microbatch: int) -> None:
    model = InMemoryModel(tiny.subject(tokens_per_microbatch=tokens_per_microbatch), seed=0)
    found = model.loglikelihood(requests("loglikelihood", PAIRS))
    expected = theirs.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    assert [float(value) for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert model.shortened == {"task": 1}


def test_greedy_continuations_are_known_as_such(theirs: HFLM) -> None:
    model = InMemoryModel(tiny.subject(), seed=0)
    context = "Where did the cat sit? A:"
    said = model.generate_until(requests("generate_until", [(context, {"max_gen_toks": 6, "do_sample": False})]))[0]
    tokens = len(tiny.tokenizer()(said)["input_ids"])
    other = "x" if said[-1] != "x" else "y"
    pairs = [(context, said), (context, said[:-1] + other)]
    found = model.loglikelihood(requests("loglikelihood", pairs))
    expected = theirs.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert found[0][0].tokens == tokens


def test_generated_text_equals_the_harness_s_own(theirs: HFLM) -> None:
    found = InMemoryModel(tiny.subject(generation_batch=3), seed=0).generate_until(requests("generate_until", PROMPTS))
    expected = [theirs.generate_until(requests("generate_until", [prompt]), disable_tqdm=True)[0] for prompt in PROMPTS]
    assert found == expected
    assert len(set(found)) == len(found)


def test_rolling_loglikelihoods_equal_the_harness_s_own(theirs: HFLM) -> None:
    texts = [("The cat sat on the mat.",), ("two men walk along a street " * 40,)]
    found = InMemoryModel(tiny.subject(), seed=0).loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    expected = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", texts), disable_tqdm=True)
    assert found == pytest.approx(expected, abs=1e-3)


def test_choices_of_one_token_share_a_forward_pass() -> None:
    subject = tiny.subject()
    read = []
    handle = subject.model.base_model.register_forward_hook(
        lambda module, args, kwargs, output: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    InMemoryModel(subject, seed=0).loglikelihood(requests("loglikelihood", [("Answer:", "A"), ("Answer:", "B")]))
    handle.remove()
    assert [len(tiny.tokenizer()(text)["input_ids"]) for text in "AB"] == [1, 1]
    assert sum(read) == len(tiny.tokenizer()("Answer:")["input_ids"])  # once, not once a choice


def test_nothing_of_the_global_random_state_is_touched() -> None:
    subject = tiny.subject()
    before = torch.get_rng_state()
    sampled = [("how many?", {"max_gen_toks": 5, "do_sample": True, "temperature": 1.0})]
    one, two = (InMemoryModel(subject, seed=4).generate_until(requests("generate_until", sampled)) for _ in "ab")
    assert one == two
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_asked_is_refused() -> None:
    model = InMemoryModel(tiny.subject(context=16), seed=0)
    with pytest.raises(ModelError, match="task: answers of 16 tokens leave no room"):
        model.generate_until(requests("generate_until", [("a", {"max_gen_toks": 16})]))
    with pytest.raises(ModelError, match=r"item 0 has a continuation of .* does not fit the model's context of 16"):
        model.loglikelihood(requests("loglikelihood", [("a", " two men walk along a street" * 4)]))
    with pytest.raises(DataError, match="item 0 has a continuation without a token"):
        model.loglikelihood(requests("loglikelihood", [("a", "")]))
    with pytest.raises(ConfigError, match=r"generated with \{'num_beams': 4\}"):
        model.generate_until(requests("generate_until", [("a", {"max_gen_toks": 4, "num_beams": 4})]))
