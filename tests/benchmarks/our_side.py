"""Plumbline's PPO on the work of ``workload``. Prints one JSON object. ``python -m tests.benchmarks.our_side --size 3M``"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from tasks.engine.config import RuntimeConfig
from tasks.language.models import ScalarModel
from tasks.ppo import learner as stage
from tasks.ppo.config import PPOConfig
from tasks.ppo.learner import PPOLearner
from tasks.ppo.rollout import Networks
from tasks.records.records import Document, Prompt
from tests.benchmarks import workload
from tests.benchmarks.workload import Work
from tests.shipped import shipped

CONF = Path(__file__).parents[2] / "conf"
ADAM = {"learning_rate": 1e-6, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0}
PTX_ROW_TOKENS = 64


def learner(work: Work) -> PPOLearner:
    """The stage's learner, with the knobs that TRL's side has set to the same values."""
    policy, reference, reward, value = workload.build_models(work)
    parts = (policy, reference, _scalar(reward), _scalar(value))
    networks = Networks(*(part.to(work.device) for part in parts))
    values: dict[str, Any] = shipped("ppo", "sandbox")
    values |= {
        "beta": 0.05,
        "gamma": work.gamma,
        "episodes": work.batch * 1000,
        "episodes_per_iteration": work.batch,
        "minibatch_size": work.minibatch,
        "inner_epochs": 1,
        "prompt_tokens": workload.LONGEST_PROMPT,
        "response_tokens": work.response,
        "policy_adam": values["policy_adam"] | ADAM,
        "value_adam": values["value_adam"] | ADAM,
        "sentinel": values["sentinel"] | {"every": 0},
        "missing_eos": "none",
        "old_logprobs": work.old_logprobs,
        "ptx_examples_per_episode": 1,
        "ptx_row_tokens": PTX_ROW_TOKENS,
        "seed": 0,
    }
    group = "cpu" if work.device == "cpu" else "gpu"
    runtime: dict[str, Any] = yaml.safe_load((CONF / "runtime" / f"{group}.yaml").read_text())
    runtime |= {"device": work.device, "precision": work.precision, "threads": 1, "debug": False}
    texts = [" ".join(f"t{token}" for token in prompt) for prompt in workload.prompts(work)]
    return PPOLearner(
        networks,
        workload.tokenizer(work),
        [Prompt(prompt_id=str(index), owner_id="o", text=text) for index, text in enumerate(texts)],
        [Document(text=" ".join(texts[:100]))] if work.gamma else [],
        PPOConfig.model_validate(values),
        RuntimeConfig.model_validate(runtime),
    )


def _scalar(classifier: Any) -> ScalarModel:
    model = ScalarModel(classifier.model)
    with torch.no_grad():
        model.head.weight.copy_(classifier.score.weight)
        model.head.bias.zero_()
    return model


def measure(work: Work) -> dict[str, Any]:
    """Run one iteration to warm up, then the measured ones."""
    trained = learner(work)
    spent: dict[str, float] = {}

    def timed(owner: Any, name: str, phase: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            result = function(*args, **kwargs)
            spent[phase] = spent.get(phase, 0.0) + time.process_time() - started
            return result

        setattr(owner, name, run)

    timed(trained.engine, "sample", "generation")
    timed(trained, "_train", "update")
    usual = stage.evaluate_episodes
    timed(stage, "evaluate_episodes", "scoring")
    base, rows = workload.memory_mb("VmRSS"), []
    try:
        for _ in range(work.iterations + 1):
            spent.clear()
            started, wall = time.process_time(), time.perf_counter()
            trained.step()
            rows.append(dict(spent, total=time.process_time() - started, wall=time.perf_counter() - wall))
            assert trained.last_rollout is not None
            rows[-1]["response_tokens"] = float(trained.last_rollout.lengths.sum())
    finally:
        stage.evaluate_episodes = usual
    value_model = trained.networks.value_model
    assert value_model is not None
    count = sum(p.numel() for p in (*trained.update.optimizers.policy.parameters, *value_model.parameters()))
    return {"side": "plumbline"} | workload.summary(work, rows, base, count)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(workload.parse(sys.argv[1:]))))
