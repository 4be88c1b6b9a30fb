"""Runs that wait for people: the state they end in, and what starts them again when the labels are there.

A deployment's run does not stay suspended. It ends in the state ``AwaitingLabels`` and is scheduled again, as a crashed run is:
its stages are found in the store, so nothing is lost, and no worker, timeout or paused process has to live for as long as people
take. A run that waits leaves a file with its id in the batch, and in it how many labels it waits for; whoever adds the last of
them wakes it: the labelling page, and the import of labels.
"""

import os
import time
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment, flow_run
from prefect.states import Failed, Scheduled

from tasks.engine.caching import AWAITING_LABELS
from tasks.engine.errors import AwaitingLabels
from tasks.engine.urls import without_password
from tasks.records.labels import WAITING, progress, read_batch, read_labels

EXIT_STATUS = 4
"""Of the command line when people have to label first."""
PATIENCE = 30.0
"""Seconds in which a run that has just found labels missing reaches its state."""
Ended = TypeVar("Ended")


def await_labels(waiting: AwaitingLabels, kind: type[Ended]) -> Ended | None:
    """The state to end a flow in; None when the last labels came in while it ended.

    Args:
        waiting: what is missing.
        kind: what the flow returns otherwise.
    """
    folder = Path(waiting.batch)
    if deployment.id is not None:
        place = folder / WAITING / str(flow_run.id)
        place.parent.mkdir(exist_ok=True)
        place.write_text(str(waiting.wanted), encoding="utf-8")
        if enough(folder, waiting.wanted):  # whoever gave the last one may not have seen the file
            place.unlink(missing_ok=True)
            return None
    state: State[Any] = Failed(name=AWAITING_LABELS, message=str(waiting), data=waiting)
    return cast("Ended", state)  # a flow that returns a state ends in it, and its caller meets the state's data


def enough(folder: Path, wanted: int) -> bool:
    """Whether a batch has as many labels as a run waits for."""
    batch = read_batch(folder)
    given = read_labels(batch)
    return progress(batch, given, {label.labeler for label in given}).given >= wanted


def wake(folder: Path) -> list[str]:
    """Schedule the deployment runs again that wait for the labels that a batch has; returns what to tell about the others.

    Nothing is lost where there is no server to ask: a run looks at the labels whenever it is started again.
    """
    told = []
    for place in sorted((folder / WAITING).glob("*")):
        if not enough(folder, int(place.read_text(encoding="utf-8") or 0)):
            continue
        try:
            if "PREFECT_API_URL" not in os.environ:
                remedy = ": set PREFECT_API_URL, or start"
            elif _wake(UUID(place.name)):
                place.unlink(missing_ok=True)
                continue
            else:
                remedy = " and is not ready to go on; start"
        except httpx.HTTPError as error:
            server = without_password(os.environ["PREFECT_API_URL"])
            remedy = f", and Prefect at {server} does not answer ({type(error).__name__}): start the server, then start"
        told.append(f"run {place.name} waits for these labels{remedy} it again on its Prefect page")
    return told


def _wake(run: UUID) -> bool:
    end = time.monotonic() + PATIENCE
    with get_client(sync_client=True) as api:
        while True:
            try:
                state = api.read_flow_run(run).state
            except ObjectNotFound:
                return True
            if state is not None and state.name == AWAITING_LABELS:
                again: State[Any] = Scheduled(name="AwaitingRetry", message="the labels are there")
                api.set_flow_run_state(run, again)
                return True
            if state is not None and (state.is_final() or state.is_scheduled()):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
