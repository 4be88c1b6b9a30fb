"""One policy measured end to end: random tiny models, real sandbox prompts."""

import copy
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from tasks.compare.compare import compare_sheets
from tasks.language.models import ScalarModel
from tasks.measure import policy_sheet
from tasks.measure.benchmarks import Subject
from tasks.measure.layouts import BIASED, RESPECTFUL
from tasks.measure.policy_sheet import Yardsticks, evaluate_policy
from tasks.measure.suite.run import SuiteResults
from tasks.records.data import PreparedData
from tasks.records.records import BenchmarkItem, Demonstration, Document, Prompt
from tasks.results.sheet import PolicySheet, SafetyScores, TaskResult, read_sheet, write_sheet
from tasks.sandbox.gold import gold_score
from tasks.sandbox.prompts import prompts as sandbox_prompts
from tasks.sandbox.safety import toxicity_prompts
from tasks.sandbox.world import World
from tests.unit import tiny_models
from tests.unit.results.sheets import evaluation_config
from tests.unit.sampling import generate

WORLD = World.from_seed(1)
CONFIG = evaluation_config(
    test_prompts=12, best_of_n=[2, 3], best_of_n_prompts=5, context_tokens=30, bootstrap_samples=200, toxicity_prompts=4
)


class Data:
    """What the evaluation asks of prepared data."""

    def prompts_for_test(self) -> list[Prompt]:
        return sandbox_prompts(WORLD, 20, seed=5, held_out_share=0.4)

    def demonstrations(self, split: str) -> list[Demonstration]:
        assert split == "train"
        return tiny_models.demonstrations(9)

    def training_prompts(self) -> set[str]:
        return {self.prompts_for_test()[3].text.replace("q : ", "q : now then , ", 1)}

    def benchmarks(self) -> list[BenchmarkItem]:
        item = BenchmarkItem(item_id="1", task="pick", form="choice", context="the", choices=["cat", "red"], answer=0)
        exact = BenchmarkItem(item_id="2", task="say", form="exact", context="the", references=["cat"])
        return [item, exact]

    def documents(self, split: str) -> list[Document]:
        assert split == "valid"
        return tiny_models.documents(6)

    def toxicity_prompts(self) -> list[Prompt]:
        return toxicity_prompts(WORLD, 6, seed=2)


def measure(
    name: str, seed: int, *, gold: bool = True, baseline: bool = False, asked: Any = CONFIG, **runtime: Any
) -> PolicySheet:
    reward = ScalarModel.from_policy(tiny_models.policy(9), torch.Generator().manual_seed(1))
    config = asked if gold else CONFIG.model_copy(update={"toxicity": evaluation_config("own_data").toxicity})
    return evaluate_policy(
        name,
        Subject(tiny_models.policy(seed), tiny_models.tokenizer(), tiny_models.runtime(**runtime)),
        Yardsticks(
            reference=lambda: tiny_models.policy(0),
            reward=lambda: reward,
            tokenizer=tiny_models.tokenizer(),
            world=WORLD if gold else None,
        ),
        cast(PreparedData, Data()),
        config,
        baseline=baseline,
        on_progress=lambda part: None,
    )


@pytest.fixture(scope="module")
def sft() -> PolicySheet:
    return measure("sft", 0, baseline=True)


@pytest.fixture(scope="module")
def ptx() -> PolicySheet:
    return measure("ppo_ptx", 4)


def test_every_prompt_has_every_set_of_responses(sft: PolicySheet, ptx: PolicySheet) -> None:
    assert len(sft.samples) == 12
    assert list(sft.samples[0].responses) == ["sampled", "greedy", "opponent", "best_of_2", "best_of_3"]
    assert list(sft.samples[5].responses) == ["sampled", "greedy", "opponent"]
    assert list(ptx.samples[0].responses) == ["sampled", "greedy"]
    assert any(row.held_out for row in sft.samples) and not all(row.held_out for row in sft.samples)


def test_the_second_sample_is_independent_of_the_first(sft: PolicySheet) -> None:
    first, second = sft.responses("sampled"), sft.responses("opponent")
    assert sum(a.text != b.text for a, b in zip(first, second, strict=True)) > 6


def test_scores_are_those_of_the_judges(ptx: PolicySheet) -> None:
    prompts = {prompt.prompt_id: prompt for prompt in Data().prompts_for_test()}
    for row in ptx.samples:
        for said in row.responses.values():
            expected = gold_score(WORLD, prompts[row.prompt_id], said.text, said.finished).total
            assert said.scores["gold"] == expected
            assert said.tokens == len(said.text.split()) + said.finished


def test_kl_to_itself_is_nothing_and_to_another_is_positive(sft: PolicySheet, ptx: PolicySheet) -> None:
    assert sft.kl == pytest.approx([0.0] * 12, abs=1e-5)
    assert np.mean(ptx.kl) > 3 * np.std(ptx.kl) / 12**0.5


def test_kl_is_the_summed_log_ratio_of_the_sampled_responses(ptx: PolicySheet) -> None:
    tokenizer, policy, reference = tiny_models.tokenizer(), tiny_models.policy(4), tiny_models.policy(0)
    ratios = []
    for row in ptx.samples:
        said = row.responses["sampled"]
        prompt = tokenizer(row.prompt)["input_ids"][-CONFIG.prompt_tokens :]
        answer = tokenizer(said.text)["input_ids"] + [tiny_models.EOS] * said.finished
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            tables = [model(ids).logits[0].log_softmax(-1) for model in (policy, reference)]
        ratios.append(sum((tables[0] - tables[1])[len(prompt) + at - 1, t].item() for at, t in enumerate(answer)))
    assert ptx.kl == pytest.approx(ratios, abs=1e-4)


def test_best_of_n_is_picked_by_the_reward_model(sft: PolicySheet) -> None:
    best = {n: [row.responses[f"best_of_{n}"].scores["reward_model"] for row in sft.samples[:5]] for n in (2, 3)}
    assert all(three >= two for two, three in zip(best[2], best[3], strict=True))
    assert [point.n for point in sft.best_of_curve] == [1, 2, 3]
    assert sft.best_of_curve[-1].scores["reward_model"] == pytest.approx(np.mean(best[3]))
    assert sft.best_of_curve[0].scores["reward_model"] < sft.best_of_curve[-1].scores["reward_model"]


def test_truth_and_toxicity_cover_their_prompts(ptx: PolicySheet) -> None:
    asked = [p for p in Data().prompts_for_test()[:12] if p.metadata["task"] == "thing"]
    assert asked, "choose another seed: no test prompt asks about a thing"
    assert set(ptx.truthfulness) == {"sampled", "greedy"}
    assert len(ptx.truthfulness["greedy"].true) == len(asked)
    assert ptx.toxicity is not None
    assert (ptx.toxicity.scorer, len(ptx.toxicity.scores)) == ("sandbox_words", 4)
    assert {task: len(result.correct) for task, result in ptx.benchmarks.items()} == {"pick": 1, "say": 1}
    assert ptx.documents is not None
    assert len(ptx.documents.nll) == 6


def test_the_same_seed_gives_the_same_sheet_whatever_the_batching(ptx: PolicySheet, tmp_path: Any) -> None:
    again = measure("ppo_ptx", 4)
    write_sheet(ptx, tmp_path)
    assert again == ptx == read_sheet(tmp_path)
    other = measure("ppo_ptx", 4, tokens_per_microbatch=40, generation_batch=3)
    assert [r.text for r in other.responses("greedy")] == [r.text for r in ptx.responses("greedy")]
    assert other.kl == pytest.approx(ptx.kl, abs=1e-4)


def test_greedy_responses_are_greedy(ptx: PolicySheet) -> None:
    tokenizer = tiny_models.tokenizer()
    said = generate(
        tiny_models.policy(4),
        [tokenizer(ptx.samples[0].prompt)["input_ids"][-CONFIG.prompt_tokens :]],
        max_new_tokens=CONFIG.response_tokens,
        temperature=0.0,
        generator=torch.Generator(),
        eos_id=tiny_models.EOS,
        pad_id=0,
        batch_size=1,
    )[0]
    assert ptx.samples[0].responses["greedy"].tokens == len(said)


def test_every_safety_measure_has_its_scorer_layout_and_items(ptx: PolicySheet) -> None:
    assert ptx.toxicity is not None
    toxic, *truth = ptx.safety
    assert (toxic.measure, toxic.layout, toxic.scorer, toxic.unit) == (
        *("toxicity", "basic: the sentence alone", "sandbox_words", "share"),
    )
    assert toxic.values == ptx.toxicity.scores
    assert [(figure.measure, figure.layout) for figure in truth] == [
        (f"answers {what}", f"the question alone, {how}")
        for how in ("T = 1", "greedy")
        for what in ("true", "informative", "true and informative")
    ]
    found = ptx.truthfulness["greedy"]
    both = [int(a and b) for a, b in zip(found.true, found.informative, strict=True)]
    assert truth[-1].values == both


def test_toxicity_is_measured_with_each_instruction_before_the_whole_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    temperatures: list[float] = []
    answer = policy_sheet._answer

    def spy(subject: Subject, prompts: list[Prompt], config: Any, temperature: float, seed: int) -> Any:
        found = answer(subject, prompts, config, temperature, seed)
        words = [[tiny_models.WORDS[token] for token in tokens] for tokens in found.prompts]
        asked.append([prompt.text for prompt in prompts])
        temperatures.append(temperature)
        assert all(len(row) == len(prompt.text.split()) for row, prompt in zip(words, prompts, strict=True))  # uncut
        return found

    monkeypatch.setattr(policy_sheet, "_answer", spy)
    layouts = CONFIG.toxicity.model_copy(update={"layouts": ["basic", "respectful", "biased"]})
    longest = max(len(prompt.text.split()) for prompt in Data().toxicity_prompts())
    config = CONFIG.model_copy(update={"toxicity": layouts, "prompt_tokens": longest})
    subject = Subject(tiny_models.policy(4), tiny_models.tokenizer(), tiny_models.runtime())
    bare, figures = policy_sheet._toxicity(subject, cast(PreparedData, Data()), config)
    plain = [prompt.text for prompt in Data().toxicity_prompts()[:4]]
    assert asked == [plain, [f"{RESPECTFUL}\n{text}" for text in plain], [f"{BIASED}\n{text}" for text in plain]]
    assert temperatures == [0.0] * 3, "the paper's suite is greedy"
    assert [figure.layout.partition(":")[0] for figure in figures] == ["basic", "respectful", "biased"]
    assert bare is not None and len(bare.scores) == 4


def test_what_follows_the_first_newline_is_not_scored_for_toxicity(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = policy_sheet._answer

    def two_lines(*given: Any) -> Any:
        found = answer(*given)
        return found._replace(texts=["you are kind .\nshut up , idiot ."] * 2 + ["shut up , idiot .\nsorry ."] * 2)

    monkeypatch.setattr(policy_sheet, "_answer", two_lines)
    subject = Subject(tiny_models.policy(4), tiny_models.tokenizer(), tiny_models.runtime())
    bare, _ = policy_sheet._toxicity(subject, cast(PreparedData, Data()), CONFIG)
    assert bare is not None and bare.scores == [0.0, 0.0, 1.0, 1.0]


def test_the_harness_s_tasks_stand_beside_those_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = SafetyScores(measure="bias", layout="basic", scorer=None, unit="bits", values=[0.4, 0.6])
    extra = TaskResult(item_ids=["1", "2"], correct=[0.5, 1.0], metric="f1")
    monkeypatch.setattr(policy_sheet, "run_suite", lambda *_: SuiteResults({"instructgpt_drop": extra}, [figure]))
    found = measure("ppo_ptx", 4)
    assert list(found.benchmarks) == ["pick", "say", "instructgpt_drop"]
    assert found.safety[-1] == figure


def test_own_data_has_no_gold_and_no_truth() -> None:
    sheets = {"sft": measure("sft", 0, gold=False, baseline=True), "ppo_ptx": measure("ppo_ptx", 4, gold=False)}
    assert sheets["sft"].judges() == {"reward_model"}
    assert sheets["sft"].truthfulness == {}
    assert sheets["sft"].toxicity is None
    comparison = compare_sheets(sheets, CONFIG)
    assert comparison.judges == ["reward_model"]
    assert not any("gold" in name for name in comparison.metrics)


def test_one_network_at_a_time_is_in_memory_beside_the_policy() -> None:
    there: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    read: list[str] = []

    def reads(name: str, make: Callable[[], Any]) -> Callable[[], Any]:
        def load() -> Any:
            assert not list(there), f"{name} is read while another network is there"
            network = make()
            there.add(network)
            read.append(name)
            return network

        return load

    judge = ScalarModel.from_policy(tiny_models.policy(9), torch.Generator().manual_seed(1))
    sheet = evaluate_policy(
        "sft",
        Subject(tiny_models.policy(3), tiny_models.tokenizer(), tiny_models.runtime()),
        Yardsticks(
            reference=reads("reference", partial(tiny_models.policy, 0)),
            reward=reads("reward model", partial(copy.deepcopy, judge)),
            tokenizer=tiny_models.tokenizer(),
            independent=reads("second", partial(copy.deepcopy, judge)),
        ),
        cast(PreparedData, Data()),
        CONFIG.model_copy(update={"toxicity": evaluation_config("own_data").toxicity}),
        baseline=True,
        on_progress=lambda part: None,
    )
    assert read == ["reward model", "second", "reference"]
    for row in sheet.samples:
        for said in row.responses.values():
            assert said.scores["independent"] == said.scores["reward_model"]
