"""Runs of killed processes: Prefect and MLflow would show them as running for ever.

A run is marked with the process that drives it. When another one starts on the same machine and that process is gone, the
run is shown as crashed. Runs of other machines are left alone.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.states import Crashed

from tasks.engine.errors import TrackingAway
from tasks.engine.tracking import client as mlflow_client

PROCESS_TAG = "plumbline.process"
MARK = "process:"
RUNNING = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
UNFINISHED = [StateType.PENDING, StateType.RUNNING]


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when there is no such process. Tells reused pids apart.

    psutil has only the time of day, which moves when the clock is set: a run that goes on would be shown as crashed.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def this_process() -> str:
    """``host/pid/start`` of the process that drives a run."""
    return f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"


def is_gone(process: str) -> bool:
    """Whether a process of this machine has ended; never true for one of another machine."""
    host, _, rest = process.partition("/")
    pid, _, start = rest.partition("/")
    if host != socket.gethostname() or not pid.isdigit() or not start:
        return False
    return _started(int(pid)) != start


def claim_flow_run() -> None:
    """Mark the flow run that this process drives, and show those of dead processes as crashed."""
    current = FlowRunContext.get()
    if current is None or current.flow_run is None:
        return
    with get_client(sync_client=True) as api:
        api.update_flow_run(current.flow_run.id, tags=[*current.flow_run.tags, MARK + this_process()])
        for run in api.read_flow_runs(flow_run_filter=FlowRunFilter(state=RUNNING)):
            drivers = [tag.removeprefix(MARK) for tag in run.tags if tag.startswith(MARK)]
            if drivers and all(is_gone(driver) for driver in drivers):
                _crash_tasks(api, run.id)
                api.set_flow_run_state(run.id, Crashed(message="its process ended without a word"), force=True)


def release_flow_run() -> None:
    """Take the mark off again when the run ends in order."""
    current = FlowRunContext.get()
    if current is not None and current.flow_run is not None:
        with get_client(sync_client=True) as api:
            api.update_flow_run(current.flow_run.id, tags=current.flow_run.tags)


def crash_tasks_of_this_run() -> None:
    """Show tasks that were stopped with their pool as crashed; they had no chance to say so."""
    current = FlowRunContext.get()
    if current is not None and current.flow_run is not None:
        with get_client(sync_client=True) as api:
            _crash_tasks(api, current.flow_run.id)


def _crash_tasks(api: SyncPrefectClient, flow_run: UUID) -> None:
    running = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED)))
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
    for task_run in api.read_task_runs(flow_run_filter=of_run, task_run_filter=running):
        api.set_task_run_state(task_run.id, Crashed(message="stopped with its run"), force=True)


def close_stage_runs(uri: str, experiment_id: str, run_id: str) -> None:
    """Show the stages of a pipeline run that still count as running as killed in MLflow."""
    with suppress(TrackingAway):  # there is something more important to report
        for stage in _running(uri, experiment_id, f"tags.`mlflow.parentRunId` = '{run_id}'"):
            mlflow_client(uri).set_terminated(stage.info.run_id, "KILLED")


def close_tracked_runs(uri: str, experiment_id: str) -> None:
    """Show pipelines of dead processes with their stages, and sweeps of dead processes, as killed in MLflow."""
    for run in _running(uri, experiment_id, "tags.`plumbline.role` != 'stage'"):
        driver = run.data.tags.get(PROCESS_TAG, "")
        if driver and is_gone(driver):
            if run.data.tags["plumbline.role"] == "pipeline":  # the points of a sweep have processes of their own
                close_stage_runs(uri, experiment_id, run.info.run_id)
            mlflow_client(uri).set_terminated(run.info.run_id, "KILLED")


def _running(uri: str, experiment_id: str, condition: str) -> list[Any]:
    query = f"attributes.status = 'RUNNING' and {condition}"
    return list(mlflow_client(uri).search_runs([experiment_id], query, max_results=1000))
