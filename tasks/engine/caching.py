"""Stages as Prefect tasks. The artifact store is the one cache; Prefect is told `Cached` and keeps no results."""

import logging
from collections.abc import Callable
from typing import Any, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from tasks.engine.artifacts import ArtifactRef
from tasks.engine.context import StageContext, StageName
from tasks.engine.errors import AwaitingLabels, PlumblineError
from tasks.engine.stage import Metrics, Workshop, run_stage


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


Story = Callable[[Workshop, Any], Metrics]


def stage(
    title: str, *, cpus: int = 1, gpus: int = 0, divided: bool = False
) -> Callable[[Story], Task[..., ArtifactRef]]:
    """Make a Prefect task of a stage's story, which fills ``shop.folder`` and returns the stage's final metrics.

    The story's package is the stage: its source, the configuration and the inputs are what the result depends on.

    Args:
        title: what the Prefect page shows.
        cpus: CPU cores the stage asks of a Ray or Dask runner.
        gpus: GPUs the stage asks for when ``runtime.device`` is a CUDA device; a divided stage asks for so many a rank.
        divided: whether ``runtime.processes`` ranks tell the story together.
    """

    def declare(story: Story) -> Task[..., ArtifactRef]:
        package = story.__module__.rsplit(".", 1)[0]

        def found_or_made(
            stage: StageName, config: Any, context: StageContext, inputs: dict[str, ArtifactRef]
        ) -> ArtifactRef:
            try:
                ref, found = run_stage(stage, config, context, inputs, story, package=package, divided=divided)
            except AwaitingLabels as waiting:
                return cast("ArtifactRef", Failed(name=AWAITING_LABELS, message=str(waiting), data=waiting))
            # A task that returns a state ends in it, and whoever waits for the task gets the state's data.
            return cast("ArtifactRef", Completed(name=CACHED, data=ref)) if found else ref

        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(found_or_made, name, getattr(story, name))
        # No tags: for a tagged task Prefect asks its server for concurrency slots, which takes longer than all the rest.
        made = task(
            name=title,
            task_run_name="{stage}",
            cache_policy=NO_CACHE,
            persist_result=False,
        )(found_or_made)
        made.resources = {"cpus": cpus, "gpus": gpus}  # type: ignore[attr-defined]
        made.divided = divided  # type: ignore[attr-defined]
        made.story = story  # type: ignore[attr-defined]
        made.package = package  # type: ignore[attr-defined]
        return made

    return declare
