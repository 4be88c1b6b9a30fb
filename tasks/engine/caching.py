"""Stages as Prefect tasks, cached by what their results depend on."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.context import StageContext, StageName
from tasks.engine.errors import PlumblineError
from tasks.engine.fingerprint import dependencies, fingerprint
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


class StageCachePolicy(CachePolicy):
    """Prefect's cache key of a stage is its fingerprint.

    Prefect keeps a small record per key. A record may outlive the artifact it points to; it is then forgotten here, so
    that the stage runs again instead of handing out a dangling reference.
    """

    def __init__(self, package: str) -> None:
        super().__init__()
        self.package = package

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **_: Any
    ) -> str | None:
        """``<stage>-<fingerprint>``, with the stale record of a lost artifact removed."""
        stage = str(inputs["stage"])
        print_of_stage = fingerprint(dependencies(self.package, inputs["config"], inputs["inputs"]))
        key = f"{stage}-{print_of_stage}"
        found = ArtifactStore(inputs["context"].store).sound(stage, print_of_stage)
        record = Path(PREFECT_LOCAL_STORAGE_PATH.value()) / key
        # One Prefect home may serve several stores, in which the same stage may have other bytes (another device).
        if found is None or (record.is_file() and found.digest not in record.read_text(encoding="utf-8")):
            record.unlink(missing_ok=True)
        return key


Story = Callable[[Workshop, Any], Metrics]


def stage(title: str, *, cpus: int = 1, gpus: int = 0) -> Callable[[Story], Task[..., ArtifactRef]]:
    """Make a Prefect task of a stage's story, which fills ``shop.folder`` and returns the stage's final metrics.

    The story's package is the stage: its source, the configuration and the inputs are what the result depends on.

    Args:
        title: what the Prefect page shows.
        cpus: CPU cores the stage asks of a Ray or Dask runner.
        gpus: GPUs the stage asks for when ``runtime.device`` is a CUDA device.
    """

    def declare(story: Story) -> Task[..., ArtifactRef]:
        package = story.__module__.rsplit(".", 1)[0]

        def found_or_made(
            stage: StageName, config: Any, context: StageContext, inputs: dict[str, ArtifactRef]
        ) -> ArtifactRef:
            return run_stage(stage, config, context, inputs, story, package=package)

        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(found_or_made, name, getattr(story, name))
        # No tags: for a tagged task Prefect asks its server for concurrency slots, which takes longer than all the rest.
        made = task(
            name=title,
            task_run_name="{stage}",
            cache_policy=StageCachePolicy(package),
            persist_result=True,
            result_serializer="json",
        )(found_or_made)
        made.resources = {"cpus": cpus, "gpus": gpus}  # type: ignore[attr-defined]
        made.package = package  # type: ignore[attr-defined]
        return made

    return declare
