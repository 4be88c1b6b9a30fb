"""The last two stages: the gate, and the release of what passed it."""

from collections.abc import Mapping
from typing import Any, Protocol

from flows.config import RLHFConfig
from flows.run.reproduce import looks_local
from flows.run.rounds import data_of, of_last_round
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.gate import check_budget
from tasks.release import release_policy
from tasks.release.config import ReleaseJob
from tasks.results.decision import DECISION, GateDecision

ANCESTRY = ("pretrain", "sft", "sft_selected", "ppo_init", "comparisons", "reward_model")
"""Stages whose digests a model card names, where they are part of the run."""


class Stages(Protocol):
    """Runs stages, or only looks them up."""

    @property
    def futures(self) -> Mapping[str, Any]:
        """Stage -> what calling for it returned."""
        ...

    def __call__(self, task: Any, group: str, config: Any, about: str = "", **inputs: Any) -> Any:
        """Run one stage, or look it up."""
        ...


def gate_stage(run: Stages, config: RLHFConfig, report: Any, **compared: Any) -> Any:
    """Hold the run's own policy against its budget, and against the champion where ``compared`` has the sheets of both."""
    about = next(iter(config.ppo_runs))
    return run(check_budget, "gate", config.evaluation.gate, about=about, evaluation=report, **compared)


def release_stage(run: Stages, config: RLHFConfig, report: Any, policy: Any, gate: Any) -> Any:
    """Release the run's own policy, with a card that names what it was made from."""
    name = next(iter(config.ppo_runs))
    made = of_last_round(run.futures)
    chain = {stage: made[stage] for stage in ANCESTRY if stage in made}
    inputs = {"data": data_of(made), **chain, "policy": policy, "evaluation": report, "gate": gate}
    return run(release_policy, "release", release_job(config, name), about=name, **inputs)


def release_job(config: RLHFConfig, policy: str) -> ReleaseJob:
    """What the card is told; where things lie and how fast the run was is left out."""
    name = config.model.name_or_path
    settings = config.model_dump(mode="json", exclude={"runtime", "tracking", "sweep"})
    settings["data_prep"]["folder"] = None  # a place on this machine, as is a local model
    if name and looks_local(name):
        settings["model"]["name_or_path"] = None
    title = config.evaluation.gate.model_name or "plumbline-policy"
    return ReleaseJob(title=title, base_model=name if name and not looks_local(name) else "", settings=settings)


def decision_in(store: ArtifactStore, gate: ArtifactRef) -> GateDecision:
    """What the gate said, from its artifact."""
    return GateDecision.model_validate_json((store.open(gate) / DECISION).read_text(encoding="utf-8"))
