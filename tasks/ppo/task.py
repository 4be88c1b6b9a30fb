"""PPO as a task."""

import json
import math
from collections.abc import Mapping

from tasks.artifacts import ArtifactRef, write_json
from tasks.caching import stage_task
from tasks.context import StageContext
from tasks.data import PreparedData
from tasks.models import ScalarModel, load_policy, save_policy
from tasks.ppo.config import PPOConfig
from tasks.ppo.learner import PPOLearner
from tasks.ppo.rollout import Networks
from tasks.stage import Workshop, run_stage

# What a rerun reproduces bit for bit; speed is logged but not kept.
CURVES = (
    "objective/kl",
    "objective/score",
    "objective/reward",
    "policy/entropy",
    "response/length",
    "ptx/loss",
    "kl/beta",
)
LAST_ITERATIONS = 5


@stage_task("PPO", cpus=2, gpus=1)
def train_ppo(stage: str, config: PPOConfig, context: StageContext, inputs: dict[str, ArtifactRef]) -> ArtifactRef:
    """Optimise the policy against the reward model, held near PPO-init, with pretraining gradients of weight gamma."""

    def story(shop: Workshop) -> Mapping[str, float]:
        data = PreparedData(shop.input("data"))
        tokenizer = data.tokenizer()
        start, judge, device = (
            shop.input("ppo_init") / "policy",
            shop.input("reward_model") / "model",
            shop.runtime.device,
        )
        networks = Networks(
            policy=load_policy(start, device),
            reference=load_policy(start, device),
            reward_model=ScalarModel.load(judge, device),
            value_model=ScalarModel.load(judge, device),
        )
        prompts = data.rl_prompts("train")
        shop.uses(data.file("rl_prompts", "train"), "rl_prompts/train", len(prompts), "training")
        learner = PPOLearner(networks, tokenizer, prompts, data.documents("train"), config, shop.runtime)
        history = History(shop)
        for metrics in shop.train(learner):
            history.add(learner.completed_steps, metrics)
        save_policy(learner.final_policy(), tokenizer, shop.folder / "policy")
        write_json(shop.folder / "history.json", history.rows)
        return history.final()

    return run_stage(stage, config, context, inputs, story, package="tasks.ppo")


class History:
    """The curves that the report draws; kept beside the checkpoints so that a resumed run has them whole."""

    def __init__(self, shop: Workshop) -> None:
        self._path = shop.checkpoints / "history.jsonl"
        self.rows: list[dict[str, float]] = []
        if self._path.is_file():
            rows = [json.loads(line) for line in self._path.read_text().splitlines() if line.endswith("}")]
            # A killed run may have written iterations that its successor repeats, with equal numbers.
            self.rows = [row for _, row in sorted({row["step"]: row for row in rows}.items())]
            self._path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep one iteration; one that a resumed run repeats takes the place of the earlier."""
        row = {"step": float(step)} | {name: metrics[name] for name in CURVES if name in metrics}
        self.rows = [*(old for old in self.rows if old["step"] < step), row]
        with self._path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    def final(self) -> dict[str, float]:
        """Means over the last iterations."""
        last = self.rows[-LAST_ITERATIONS:]
        means = {name: sum(row[name] for row in last) / len(last) for name in CURVES if name in last[-1]}
        return {name: value for name, value in means.items() if math.isfinite(value)}
