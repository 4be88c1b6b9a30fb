"""One point of the study: run what it needs, read the numbers that the findings use."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flows.process import environment  # noqa: F401  first: Prefect reads the environment when it is imported

from prefect import flow  # isort: skip
from prefect.futures import PrefectFuture

from flows.config import RLHFConfig
from flows.rlhf import rlhf
from flows.run.costs import road_costs
from flows.run.pipeline import Pipeline
from flows.run.summary import StageRecord, headline
from flows.study.points import Point
from flows.study.policy_findings import INTERVENTIONS
from flows.study.records import PointRecord
from flows.sweep.membership import as_point
from flows.tools.tracked import metric_history
from tasks.comparisons import collect_comparisons
from tasks.data_prep import prepare_data
from tasks.engine.artifacts import ArtifactRef, ArtifactStore, Manifest
from tasks.engine.errors import ArtifactError
from tasks.pretrain import train_base
from tasks.results.policies import names_of
from tasks.reward_model import train_reward_model
from tasks.sft import fine_tune, select_epoch

POLICIES = names_of("own")
LAST_SHARE = 0.2
"""Of the training steps, averaged for a reward model's accuracy on what it was trained on."""


class PointFigures(NamedTuple):
    """The numbers of one point."""

    run_id: str
    metrics: dict[str, float]
    history: list[dict[str, float]]
    best_of_n: list[dict[str, float]]


def measure(point: Point, config: RLHFConfig, fingerprint: str, study_run: str, number: int) -> PointRecord:
    """Run a point and keep its numbers; its MLflow run is a child of the study's.

    Raises:
        PlumblineError: a stage of the point failed.
    """
    started = time.monotonic()
    with as_point(study_run, "study", number):
        if point.kind == "policy":
            found = _policy(config, point.row)
        elif point.kind == "reward_model":
            found = reward_model_only(config)
        else:
            found = every_sft_epoch(config, point.epochs)
    return PointRecord(
        point=point,
        fingerprint=fingerprint,
        seconds=time.monotonic() - started,
        run_id=found.run_id,
        metrics={name: value for name, value in found.metrics.items() if math.isfinite(value)},
        history=found.history,
        best_of_n=found.best_of_n,
    )


def _policy(config: RLHFConfig, row: str) -> PointFigures:
    """The whole pipeline: the final figures of one of its policies, that one's curve, the best-of-n curve of SFT."""
    outcome = rlhf(config)
    record = next(stage for stage in outcome.stages if stage.stage in ([row] if row else POLICIES))
    store = config.tracking.open_store()
    made = store.find(*record.artifact.split("/"))
    curve_of = store.open(made) / "history.json" if made is not None else None
    history = json.loads(curve_of.read_text(encoding="utf-8")) if curve_of is not None and curve_of.is_file() else []
    metrics = headline(outcome.metrics, record.stage)
    metrics["policy/eos_rate"] = outcome.metrics[f"eos_rate/{record.stage}"]
    metrics |= _costs(config, outcome.stages, record.stage)
    metrics |= interventions(store, record.artifact)
    curve = [{"n": float(item.n), "kl": item.kl, **item.scores} for item in outcome.comparison.best_of_curve]
    return PointFigures(outcome.run_id, metrics, history, curve)


def interventions(store: ArtifactStore, artifact: str) -> dict[str, float]:
    """How often PPO's brake held; nothing of a policy that had none."""
    manifest = store.manifest(*artifact.split("/"))
    found = {} if manifest is None else manifest.metrics
    return {INTERVENTIONS: found[INTERVENTIONS]} if INTERVENTIONS in found else {}


def _costs(config: RLHFConfig, stages: Sequence[StageRecord], policy: str) -> dict[str, float]:
    """What a policy's own stages took, whenever they ran; memory is left out, as the process has had other points before."""
    store = config.tracking.open_store()
    made = {stage.stage: ref for stage in stages if (ref := store.find(*stage.artifact.split("/"))) is not None}
    cost = next(cost for cost in road_costs(store, made, config) if cost.policy == policy)
    counted = {name: getattr(cost, name) for name in ("samples", "tokens_drawn", "tokens_learned", "seconds")}
    return {f"cost/{name}": value for name, value in counted.items() if value is not None}


@flow(name="study-reward-model", flow_run_name="{config.tracking.run_name}")
def reward_model_only(config: RLHFConfig) -> PointFigures:
    """The pipeline up to its reward model, with how well that orders pairs it has and has not seen."""
    with Pipeline(config) as run:
        futures = _up_to_reward_model(run, config)
        manifests = {stage: _manifest(run.store, future.result()) for stage, future in futures.items()}
        folder = run.store.open(futures["reward_model"].result())
    accuracy = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    metrics = {
        **manifests["reward_model"].metrics,
        **manifests["comparisons"].metrics,
        **{f"log_loss/{name}": report["log_loss"] for name, report in accuracy.items() if report["pairs"]},
    }
    steps = metric_history(config.tracking.uri, manifests["reward_model"].run_id, ["train/accuracy", "train/loss"])
    last = steps[-max(1, round(LAST_SHARE * len(steps))) :]
    for name in ("train/accuracy", "train/loss"):
        values = [row[name] for row in last if name in row]
        if values:
            metrics[name] = sum(values) / len(values)
    return PointFigures(run.run_id, metrics, [], [])


@flow(name="study-sft-epochs", flow_run_name="{config.tracking.run_name}")
def every_sft_epoch(config: RLHFConfig, epochs: int) -> PointFigures:
    """A long SFT, each of its epochs scored on validation prompts by the reward model of the usual pipeline."""
    long = config.sft.model_copy(update={"epochs": epochs, "selection": "reward_model"})
    with Pipeline(config) as run:
        futures = _up_to_reward_model(run, config)
        data, judge = futures["data_prep"], futures["reward_model"]
        trained = run(fine_tune, "sft_long", long, data=data, base=futures["pretrain"])
        scored = run(select_epoch, "sft_selected", long, data=data, sft=trained, reward_model=judge)
        done = [future.result() for future in (*futures.values(), trained, scored)]  # the first that failed tells why
        manifests = [_manifest(run.store, ref) for ref in done[-2:]]
    return PointFigures(run.run_id, {**manifests[0].metrics, **manifests[1].metrics}, [], [])


def _up_to_reward_model(run: Callable[..., Any], config: RLHFConfig) -> dict[str, PrefectFuture[ArtifactRef]]:
    """The first lines of ``flows.rlhf``: the same stages, so that the store serves both."""
    data = run(prepare_data, "data_prep", config.data_prep_job)
    base = run(train_base, "pretrain", config.pretrain_job, data=data)
    sft = run(fine_tune, "sft", config.sft, data=data, base=base)
    world: dict[str, Any] = {"world": data} if config.data_prep.source == "sandbox" else {}
    job = config.comparisons_job(1)
    comparisons = run(collect_comparisons, "comparisons", job, data=data, policy=sft, **world)
    judge = run(train_reward_model, "reward_model", config.reward_model, data=data, comparisons=comparisons, sft=sft)
    return {"data_prep": data, "pretrain": base, "sft": sft, "comparisons": comparisons, "reward_model": judge}


def _manifest(store: ArtifactStore, ref: ArtifactRef) -> Manifest:
    manifest = store.manifest(ref.stage, ref.fingerprint)
    if manifest is None:
        raise ArtifactError(f"artifact {ref.key} in {store.root}: it vanished during the run; run the study again")
    return manifest


def place_of(config: RLHFConfig) -> Path:
    """Folder of the records and pages of studies."""
    return config.tracking.folder / "study"


def at_one_core(point: Point, config: RLHFConfig, experiment: str) -> RLHFConfig:
    """A point's pipeline as a worker runs it: one stage after the other in one process, without progress bars."""
    runtime: dict[str, Any] = {"runner": "threads", "max_workers": 1, "progress": False}
    tracking = {"experiment": experiment, "run_name": point.name}
    return config.model_copy(
        update={
            "runtime": config.runtime.model_copy(update=runtime),
            "tracking": config.tracking.model_copy(update=tracking),
        }
    )
