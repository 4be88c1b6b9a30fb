"""Under bf16 whoever samples or scores reads the networks as training does."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import tasks
from tasks.comparisons.config import ComparisonsConfig
from tasks.comparisons.sample import sample_candidates
from tasks.language.models import ScalarModel
from tasks.language.seeds import named_generator
from tasks.measure.benchmarks import Subject, run_benchmarks, sequence_logprobs
from tasks.measure.policy_sheet import _answer
from tasks.measure.scores import RewardModelJudge
from tasks.measure.suite.language_model import InMemoryModel
from tasks.ppo.engines import OwnEngine
from tasks.ppo.rollout import Episodes
from tasks.ppo.watch import IndependentJudge
from tasks.pretrain.train import validation_loss
from tasks.records.records import BenchmarkItem
from tasks.results.judge import Answers
from tasks.sft.config import SFTConfig
from tasks.sft.endings import eos_rate
from tests.unit import tiny_models as tiny
from tests.unit.dpo import test_train as dpo
from tests.unit.measure import test_benchmarks, test_policy_sheet
from tests.unit.measure.suite import tiny as suite
from tests.unit.ppo import tiny as tiny_ppo
from tests.unit.reward_model import test_train as reward_model
from tests.unit.sft import test_train as sft

BF16 = tiny.runtime(precision="bf16")
PROMPTS, RESPONSES = [[3, 4], [3, 4, 5]], [[6, 7, 1], [8, 1]]
EPISODES = Episodes(PROMPTS, RESPONSES, RESPONSES, RESPONSES, [True, True])
ANSWERS = Answers(PROMPTS, RESPONSES, ["the cat", "red"], [True, True])
EXACT = BenchmarkItem(item_id="a", task="say", form="exact", context="the cat is", references=["red"])
SEQUENCES = SFTConfig.model_validate(tiny.settings("sft", prompt_tokens=8, response_tokens=4))
CANDIDATES = ComparisonsConfig.model_validate(
    tiny.settings("comparisons", prompt_tokens=8, response_tokens=4, completions_min=2, completions_max=2)
)


def subject() -> Subject:
    return Subject(tiny.policy(), tiny.tokenizer(), BF16)


def scalar() -> ScalarModel:
    return ScalarModel.from_policy(tiny.policy(), named_generator(1, "test"))


def in_bf16(learner: Any) -> Any:
    learner.runtime = BF16
    return learner


def request(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=("a task", 0, 1))


SITES: dict[str, Callable[[], Any]] = {
    "the reward model's validation": lambda: in_bf16(reward_model.learner()).score(reward_model.comparisons()),
    "the independent judge of PPO": lambda: IndependentJudge(scalar(), 0, BF16).score([], EPISODES),
    "the judges of the evaluation": lambda: RewardModelJudge("reward_model", scalar(), 0, BF16).score([], ANSWERS),
    "log-probabilities in the evaluation": lambda: sequence_logprobs(subject(), PROMPTS, RESPONSES),
    "the suite's scores": lambda: InMemoryModel(suite.subject(precision="bf16"), 1).loglikelihood(
        [request("loglikelihood", "the", " cat")]
    ),
    "the suite's answers": lambda: InMemoryModel(suite.subject(precision="bf16"), 1).generate_until(
        [request("generate_until", "the", {"until": [], "max_gen_toks": 3})]
    ),
    "SFT's validation": lambda: in_bf16(sft.learner()).validation_loss(),
    "pretraining's validation": lambda: validation_loss(tiny.policy(), torch.tensor(PROMPTS[:1]), BF16),
    "DPO's validation": lambda: in_bf16(dpo.learner()).measure(dpo.comparisons()),
    "comparisons": lambda: sample_candidates(tiny.policy(), tiny.tokenizer(), tiny.prompts(3), CANDIDATES, BF16, 1),
    "SFT's endings": lambda: eos_rate(tiny.policy(), tiny.tokenizer(), tiny.demonstrations(3), SEQUENCES, BF16),
    "PPO's rollout": lambda: OwnEngine(tiny_ppo.config(), BF16, tiny.tokenizer()).sample(
        tiny.policy(), PROMPTS, named_generator(1, "test")
    ),
    "answers of the evaluation": lambda: _answer(subject(), tiny.prompts(3), test_policy_sheet.CONFIG, 1.0, "test"),
    "benchmarks": lambda: run_benchmarks(subject(), [EXACT], test_benchmarks.CONFIG),
}


@pytest.mark.parametrize("site", SITES)
def test_every_network_is_read_at_the_precision_of_training(site: str) -> None:
    seen: list[bool] = []

    def look(module: nn.Module, _: Any) -> None:
        if isinstance(module, nn.Linear) and module.out_features > 1:  # a scalar head has full precision on purpose
            seen.append(torch.is_autocast_enabled("cpu"))

    handle = register_module_forward_pre_hook(look)
    try:
        SITES[site]()
    finally:
        handle.remove()
    assert seen and all(seen)


def test_no_stage_samples_or_scores_by_itself() -> None:
    """But where training reads what it trains on, under its own autocast."""
    raw = re.compile(r"generation import .*\bsample\b|\w\.scores\(")
    root = Path(tasks.__file__).parent
    found = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        if file.parent.name != "language" and raw.search(file.read_text())
    }
    assert found == {"reward_model/train.py", "ppo/rollout.py"}
