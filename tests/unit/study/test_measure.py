"""The study's shorter flows ask for the pipeline's own stages, so that one store serves both."""

from pathlib import Path
from typing import Any

from flows.config import load
from flows.instructgpt import instructgpt
from flows.study.measure import _up_to_reward_model, interventions
from tasks.engine.artifacts import ArtifactStore


class Asked:
    """Writes down what a flow asks for; a stage's result is its name."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[Any, dict[str, str]]] = {}

    def __call__(self, _task: Any, stage: str, config: Any, about: str = "", **inputs: str) -> str:
        name = f"{stage}-{about}" if about else stage
        self.stages[name] = (config, inputs)
        return name


def test_every_stage_up_to_the_reward_model_is_the_pipeline_s() -> None:
    config = load(["scale=miniature"])
    pipeline, study = Asked(), Asked()
    instructgpt(config, pipeline)
    _up_to_reward_model(study, config)
    assert set(study.stages) == {"data_prep", "pretrain", "sft", "comparisons", "reward_model"}
    for name, asked in study.stages.items():
        assert asked == pipeline.stages[name], name


def test_interventions_are_the_stage_s_own_count(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for stage, metrics in (("ppo", {"brake/interventions": 2.0, "kl": 1.0}), ("dpo", {"kl": 1.0})):
        with store.publish(stage, "f" * 20, {}, {}) as draft:
            draft.metrics.update(metrics)
    assert interventions(store, f"ppo/{'f' * 20}") == {"brake/interventions": 2.0}
    assert interventions(store, f"dpo/{'f' * 20}") == interventions(store, f"sft/{'f' * 20}") == {}
