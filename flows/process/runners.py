"""Task runners by name, and the resources that each stage asks of them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, Self

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.process.fork_server import warm_up
from flows.process.logs import listen, speak_through
from tasks.engine.config import RuntimeConfig
from tasks.engine.declared import Stage
from tasks.engine.errors import ConfigError
from tasks.engine.parent import die_with_parent


def make_runner(runtime: RuntimeConfig) -> TaskRunner[Any]:
    """The Prefect task runner that ``runtime.runner`` names.

    Raises:
        ConfigError: the runner's extra is not installed.
    """
    workers = runtime.max_workers
    if runtime.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=workers)
    if runtime.runner == "processes":
        return WarmProcessPool(max_workers=workers, initializer=prepare_worker)
    try:
        if runtime.runner == "ray":
            from flows.process.ray_runner import RunnerOnRay

            own = {"num_cpus": max(workers, runtime.processes), "include_dashboard": False}
            given = {"log_to_driver": False, **({} if runtime.ray_cluster else own)}
            on_ray: TaskRunner[Any] = RunnerOnRay(runtime.ray_cluster, given)
            return on_ray
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise ConfigError(
            f"runtime.runner is {runtime.runner}, which is not installed ({error}); "
            f"install it with `pip install -c constraints.txt -e .[{runtime.runner}]` or choose processes"
        ) from error
    resources = {"CPU": 1, **({"GPU": 1} if runtime.device.startswith("cuda") else {})}
    cluster = {"n_workers": workers, "threads_per_worker": 1, "resources": resources, "dashboard_address": None}
    on_dask: TaskRunner[Any] = DaskTaskRunner(cluster_kwargs=cluster)
    return on_dask


class WarmProcessPool(ProcessPoolTaskRunner):
    """Prefect's pool of processes, with workers forked from one that has imported the stages.

    A worker that is spawned imports torch and transformers for five seconds when it is first needed, and the pool waits at
    its end for one that still does. What workers are forked from has started no Python thread and touched no GPU.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        spawning: Any = self._executor
        assert spawning is not None
        warm_up()
        context = multiprocessing.get_context("forkserver")
        sentences = context.Queue()
        listen(sentences)
        self._executor = ProcessPoolExecutor(
            max_workers=self._max_workers,
            mp_context=context,
            initializer=_prepare,
            initargs=(sentences, spawning._initializer, spawning._initargs),
        )
        spawning.shutdown(wait=False)  # it starts a process with its first task, so there is none
        return self


def _prepare(sentences: Any, initializer: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run in each worker, with what Prefect runs there."""
    speak_through(sentences)
    initializer(*arguments)


@contextmanager
def resources_of(stage: Stage, runtime: RuntimeConfig) -> Iterator[None]:
    """Ask the runner for the CPUs and GPUs that a stage declares; local pools need no asking.

    Ray finds room for the ranks of a divided stage, whose task asks for nothing itself: it would wait for what it occupies.

    Raises:
        ConfigError: Ray or Dask have too few CPUs or GPUs for the task, which would stay pending for ever.
    """
    ranks = runtime.processes if stage.divided else 1
    gpus = ranks * stage.gpus if runtime.device.startswith("cuda") else 0
    if runtime.runner == "ray":
        from prefect_ray.context import remote_options

        from tasks.engine.gang_on_ray import refuse_without_room

        if ranks > 1:
            refuse_without_room(ranks, runtime.device)
            asked = {"num_cpus": 0, "num_gpus": 0}
        else:
            asked = {"num_cpus": _cores_on_ray(stage, runtime), "num_gpus": gpus}
        with remote_options(**asked):
            yield
    elif runtime.runner == "dask":
        if gpus > 1:
            raise ConfigError(
                f"runtime.processes is {ranks} with runtime.runner=dask, whose workers have one GPU each, expected 1; use "
                "runtime.runner=processes"
            )
        import dask

        with dask.annotate(resources={"CPU": 1, **({"GPU": gpus} if gpus else {})}):
            yield
    else:
        yield


def _cores_on_ray(stage: Stage, runtime: RuntimeConfig) -> int:
    """That a stage of one process asks for: what it declares, or as many as the largest node has.

    Raises:
        ConfigError: no node has one, or there is no GPU.
    """
    import ray

    if runtime.device.startswith("cuda") and ray.cluster_resources().get("GPU", 0) < stage.gpus:
        raise ConfigError(
            f"runtime.device is {runtime.device}, but the Ray cluster has no GPU; set runtime.device=cpu or add a GPU node"
        )
    largest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    if largest < 1:
        raise ConfigError(
            "runtime.runner is ray, whose cluster has no CPU for a stage; add a node with num_cpus of 1 or more"
        )
    return min(stage.cpus, runtime.max_workers, largest)


def prepare_worker() -> None:
    """Run in each pool process: die with the flow's process, and leave Ctrl-C and SIGTERM to it."""
    die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # it died before this process could ask to be told
        os._exit(1)
    # A forked worker is a child of the fork server, which lives as long as any of its workers: the kernel never tells it.
    threading.Thread(target=_end_with, args=(parent,), name="ends with the run", daemon=True).start()
    for asked_politely in (signal.SIGINT, signal.SIGTERM):  # a terminal and a scheduler tell every process of a run
        signal.signal(asked_politely, signal.SIG_IGN)


def _end_with(parent: BaseProcess) -> None:
    """Wait for the process that started this one, and end with it."""
    parent.join()
    os._exit(1)
