"""Runs that wait for people: the state they end in, and what starts them again when the labels are there.

A deployment's run does not stay suspended. It ends in the state ``AwaitingLabels`` and is scheduled again, as a crashed run is:
its stages are found in the store, so nothing is lost, and no worker, timeout or paused process has to live for as long as people
take. A run that waits leaves a file with its id beside the batch; the labelling page wakes it when the labels are there.
"""

import os
import threading
import time
from collections.abc import Callable
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
from tasks.records.labels import FOLDER, progress, read_batch, read_labels

EXIT_STATUS = 4
"""Of the command line when people have to label first."""
WAITING = "waiting"
"""Folder in a batch with a file for each run that waits for it, which tells how many labels are enough."""
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


def wake(home: Path) -> list[str]:
    """Schedule the deployment runs that wait for labels which are there now; returns what to tell about those that cannot be.

    Nothing is lost where there is no server to ask: a run looks at the labels whenever it is started again.
    """
    told = []
    for place in sorted(home.glob(f"{FOLDER}/*/{WAITING}/*")):
        if not enough(place.parents[1], int(place.read_text(encoding="utf-8") or 0)):
            continue
        why = "PREFECT_API_URL is not set"
        if "PREFECT_API_URL" in os.environ:
            try:
                why = _wake(UUID(place.name))
            except httpx.HTTPError as error:
                why = f"the Prefect server does not answer ({type(error).__name__})"
        if why:
            told.append(
                f"run {place.name} has its labels and was not started again: {why}; start it on its Prefect page"
            )
        else:
            place.unlink(missing_ok=True)
    return told


def keep_waking(home: Path, tell: Callable[[str], None], seconds: float = 5.0) -> None:
    """Look again and again, for as long as this process lives, whoever adds the labels; every sentence is told once."""
    known: set[str] = set()

    def look() -> None:
        while True:
            for words in wake(home):
                if words not in known:
                    tell(words)
                known.add(words)
            time.sleep(seconds)

    threading.Thread(target=look, daemon=True, name="wakes runs").start()


def _wake(run: UUID) -> str:
    """Schedule one run; returns why not."""
    end = time.monotonic() + PATIENCE
    with get_client(sync_client=True) as api:
        while True:
            try:
                state = api.read_flow_run(run).state
            except ObjectNotFound:
                return ""
            if state is not None and state.name == AWAITING_LABELS:
                again: State[Any] = Scheduled(name="AwaitingRetry", message="the labels are there")
                api.set_flow_run_state(run, again)
                return ""
            if state is not None and (state.is_final() or state.is_scheduled()):
                return ""
            if time.monotonic() > end:
                return f"it is {state.name if state else 'in no state'}"
            time.sleep(0.2)
