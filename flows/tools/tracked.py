"""What MLflow knows of runs under way and of runs that ended: points, stages, times, curves."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from tasks.engine.tracking import client


def metric_history(uri: str, run_id: str, names: Sequence[str]) -> list[dict[str, float]]:
    """Curves of a run as rows ``{"step": ..., name: ...}``, for plots."""
    rows: dict[int, dict[str, float]] = {}
    for name in names:
        for point in client(uri).get_metric_history(run_id, name):
            rows.setdefault(point.step, {"step": float(point.step)})[name] = point.value
    return [rows[step] for step in sorted(rows)]


class StageWork(NamedTuple):
    """When a stage of a pipeline was at work; stages that were found in the store have none."""

    stage: str
    artifact: str
    began: float
    """Seconds since the epoch."""
    seconds: float


def stage_work(uri: str, experiment_id: str, run_id: str) -> list[StageWork]:
    """What the stages of a pipeline run did themselves, in the order of their start.

    A stage that did not end well has no measured seconds; its run's start and end stand in for them.
    """
    found = []
    for row in client(uri).search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000):
        if "plumbline.reused" in row.data.tags:
            continue
        began, ended = row.info.start_time / 1000, (row.info.end_time or time.time() * 1000) / 1000
        if "plumbline.began" in row.data.tags:
            began = float(row.data.tags["plumbline.began"])
            ended = began + row.data.metrics["stage/seconds"]
        tags = row.data.tags
        found.append(StageWork(tags["plumbline.stage"], tags.get("artifact", ""), began, ended - began))
    return sorted(found, key=lambda work: work.began)


def point_run(uri: str, experiment_id: str, sweep_run_id: str, number: int) -> str:
    """The pipeline run of a point of a sweep; empty when it never began."""
    query = f"tags.`mlflow.parentRunId` = '{sweep_run_id}' and tags.`plumbline.point` = '{number}'"
    rows = client(uri).search_runs([experiment_id], query, max_results=1)
    return str(rows[0].info.run_id) if rows else ""


def stages_at_work(uri: str, experiment_id: str, sweep_run_id: str) -> dict[int, list[str]]:
    """Number of each point of a sweep that is under way -> the stages it is at."""
    tracking = client(uri)
    points = tracking.search_runs(
        [experiment_id],
        f"attributes.status = 'RUNNING' and tags.`mlflow.parentRunId` = '{sweep_run_id}'",
        max_results=1000,
    )
    if not points:
        return {}
    numbers = {point.info.run_id: int(point.data.tags["plumbline.point"]) for point in points}
    running = tracking.search_runs(
        [experiment_id], "attributes.status = 'RUNNING' and tags.`plumbline.role` = 'stage'", max_results=1000
    )
    stages: dict[int, list[str]] = {number: [] for number in numbers.values()}
    for stage in running:
        number = numbers.get(stage.data.tags.get("mlflow.parentRunId", ""))
        if number is not None:
            stages[number].append(stage.data.tags["plumbline.stage"])
    return stages
