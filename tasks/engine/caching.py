"""Stages as Prefect tasks. The artifact store is the one cache; Prefect is told `Cached` and keeps no results."""

import logging
from functools import cache
from typing import Any, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from tasks.engine.artifacts import ArtifactRef
from tasks.engine.context import StageContext, StageName
from tasks.engine.declared import Stage
from tasks.engine.errors import AwaitingLabels, PlumblineError
from tasks.engine.stage import run_stage


class NoTraceback(logging.Filter):
    """What the user can put right is said in one sentence; Prefect would print it below a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, those of a ``PlumblineError`` without their traceback."""
        if record.exc_info and isinstance(record.exc_info[1], PlumblineError):
            record.exc_info, record.exc_text = None, None
        return True


for _of_runs in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_of_runs).addFilter(NoTraceback())

CACHED = "Cached"
"""Name of the state of a task whose artifact was found."""
AWAITING_LABELS = "AwaitingLabels"
"""Name of the state of a task, and of a run, that can go on only when people have labelled more."""


@cache
def as_task(declared: Stage) -> Task[..., ArtifactRef]:
    """A declared stage as a Prefect task, which ends in the state ``Cached`` where the store has the result."""

    def found_or_made(
        stage: StageName, config: Any, context: StageContext, inputs: dict[str, ArtifactRef]
    ) -> ArtifactRef:
        try:
            ref, found = run_stage(
                stage, config, context, inputs, declared.load, package=declared.package, divided=declared.divided
            )
        except AwaitingLabels as waiting:
            return cast("ArtifactRef", Failed(name=AWAITING_LABELS, message=str(waiting), data=waiting))
        # A task that returns a state ends in it, and whoever waits for the task gets the state's data.
        return cast("ArtifactRef", Completed(name=CACHED, data=ref)) if found else ref

    found_or_made.__name__ = found_or_made.__qualname__ = declared.name
    # No tags: for a tagged task Prefect asks its server for concurrency slots, which takes longer than all the rest.
    return task(
        name=declared.title,
        task_run_name="{stage}",
        cache_policy=NO_CACHE,
        persist_result=False,
    )(found_or_made)
