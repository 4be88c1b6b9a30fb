"""What happens to a policy once it is measured: the gate, the release, the registered version; or a failed state."""

import logging
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast

from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Failed

from flows.config import RLHFConfig
from flows.run.costs import road_costs
from flows.run.logged_models import log_models
from flows.run.pipeline import Pipeline
from flows.run.release import decision_in, gate_stage, release_stage
from flows.run.rounds import data_of, of_last_round
from flows.run.summary import Outcome
from flows.sweep.membership import is_point
from tasks.adopt import adopt_model
from tasks.adopt.config import AdoptJob
from tasks.engine.artifacts import ArtifactRef
from tasks.engine.errors import PlumblineError
from tasks.engine.registry import champion_of, register_model, weights_of
from tasks.engine.tracking import open_run
from tasks.measure import evaluate_policy
from tasks.release.config import POLICY
from tasks.results.decision import GateDecision

logger = logging.getLogger("plumbline")

GATE_FAILED = "GateFailed"
EXIT_STATUS = 3
"""Of the command line when the gate failed: everything ran, and the policy is not good enough."""
TAGGED = ("policy/", "gate/")
"""Topics of the metrics that a registered version carries."""


class GateFailed(PlumblineError):
    """A measured policy that broke its budget; the run and its results are complete.

    ``outcome`` is what the flow would have returned.
    """

    def __init__(self, outcome: Any, sentence: str) -> None:
        super().__init__(outcome, sentence)
        self.outcome, self.sentence = outcome, sentence

    def __str__(self) -> str:
        return self.sentence


def promote(
    run: Pipeline, config: RLHFConfig, report: PrefectFuture[ArtifactRef], policy: PrefectFuture[ArtifactRef]
) -> Outcome:
    """Hold the run's policy against its budget; release and register it, or end the flow in the state ``GateFailed``.

    Args:
        run: every stage is submitted.
        config: the whole run.
        report: the comparison of all policies.
        policy: the run's own policy.

    Raises:
        PlumblineError: a stage failed.
    """
    gate = gate_stage(run, config, report, **champion_stages(run, config, policy))
    decision = read_decision(run, gate)
    # What draws plots and reads notes of training: a run begins without it.
    from flows.run.page import publish_page
    from flows.run.warnings import publish_warnings

    released = release_stage(run, config, report, policy, gate) if decision.passed else None
    outcome = run.outcome(config, report, policy)
    log_models(run, outcome.metrics)
    if (rounds := run.futures.get("rounds")) is not None:
        outcome = outcome.model_copy(update={"rounds": str(run.store.open(rounds.result()))})
    made = {stage: future.result() for stage, future in run.futures.items()}
    costs = [cost.cells for cost in road_costs(run.store, made, config)]
    outcome = outcome.model_copy(update={"warnings": publish_warnings(run, list(config.ppo_runs)), "costs": costs})
    if released is not None:
        folder = run.store.open(released.result()) / POLICY
        outcome = outcome.model_copy(update={"release": str(folder)})
        if config.evaluation.gate.model_name is not None:
            outcome = outcome.model_copy(update={"version": register(run, config, outcome, policy.result())})
    page = publish_page(run, config, outcome, decision)
    return settle(run, outcome.model_copy(update={"page": str(page)}), decision)


def champion_stages(run: Pipeline, config: RLHFConfig, policy: PrefectFuture[ArtifactRef]) -> dict[str, Any]:
    """Measure the registered champion as the run's own policies were; the sheets of both, or nothing to compare with.

    A champion with the candidate's weights is the candidate.
    """
    gate = config.evaluation.gate
    if gate.model_name is None or gate.champion_margin is None:
        return {}
    champion = champion_of(run.context.tracking_uri, gate.model_name, gate.alias, run.store)
    if champion is None or champion.weights == weights_of(run.store, run.finished(policy)):
        return {}
    made, name = of_last_round(run.futures), next(iter(config.ppo_runs))
    judged = {"data": data_of(made), "reference": made.get("ppo_init", made["sft"])}
    for model in config.reward_model_runs:
        judged[model] = made[model.replace("model_", "model-member_")]  # as the stages of an ensemble are called
    if config.data_prep.source == "sandbox":
        judged["world"] = data_of(made)
    if "reward_model-independent" in made and config.evaluation.judges.independent_reward_model is None:
        judged["independent_reward_model"] = made["reward_model-independent"]
    adopted = run(
        adopt_model,
        "adopted",
        AdoptJob(folder=str(champion.folder), kind="policy", knob="evaluation.gate.model_name"),
        about="champion",
    )
    sheet = run(evaluate_policy, "evaluation", config.measured, about="champion", policy=adopted, **judged)
    return {"champion": sheet, "candidate": made[f"evaluation-{name}"]}


def read_decision(run: Pipeline, gate: PrefectFuture[ArtifactRef]) -> GateDecision:
    """What the gate said, once every stage is done."""
    return decision_in(run.store, run.finished(gate))


class Outcomes(Protocol):
    """The outcome of a flow: a frozen model with a field ``gate`` beside these."""

    @property
    def metrics(self) -> dict[str, float]:
        """Every figure of the run."""
        ...

    def model_copy(self, *, update: dict[str, Any]) -> Self:
        """The same with other values."""
        ...


Measured = TypeVar("Measured", bound=Outcomes)


def settle(run: Pipeline, outcome: Measured, decision: GateDecision) -> Measured:
    """Say what the gate said on the run's pages, and give the flow its end."""
    metrics = {"gate/passed": float(decision.passed), "gate/failed_checks": float(len(decision.failures))}
    outcome = outcome.model_copy(update={"metrics": outcome.metrics | metrics, "gate": decision.sentence})
    log = open_run(run.context.tracking_uri, run.run_id)
    log.metrics(metrics)
    log.flush()
    state = "passed" if decision.passed else "failed"
    log.tags({"plumbline.gate": state, "plumbline.gate_reason": decision.sentence})
    rows = [
        f"| {'passed' if check.passed else '**failed**'} | {check.reason} | `{check.metric}` |"
        for check in decision.checks
    ]
    create_markdown_artifact(
        key="gate", markdown="\n".join(["| | check | metric |", "|---|---|---|", *rows]), description=decision.sentence
    )
    if decision.passed:
        return outcome
    failed: State[Any] = Failed(
        name=GATE_FAILED, message=decision.sentence, data=GateFailed(outcome, decision.sentence)
    )
    return cast("Measured", failed)  # a flow that returns a state ends in it, and its caller meets the state's data


def register(run: Pipeline, config: RLHFConfig, outcome: Outcome, policy: ArtifactRef) -> str:
    """Make the released policy a version of the registered model; returns the version.

    A single run moves the alias to it. The points of a sweep leave it to the sweep, which knows the best of them.
    """
    gate, folder = config.evaluation.gate, Path(str(outcome.release))
    assert gate.model_name is not None
    figures = {name: f"{value:.6g}" for name, value in outcome.metrics.items() if name.startswith(TAGGED)}
    tags = {
        "digest": policy.digest,
        "weights": weights_of(run.store, policy),
        "artifact": policy.key,
        "pipeline_run": run.run_id,
    } | figures
    alias = None if is_point() else gate.alias
    version = register_model(run.context.tracking_uri, gate.model_name, alias, folder, run.run_id, tags)
    logger.info("%s version %s%s", gate.model_name, version, f" is {alias}" if alias else "")
    return version
