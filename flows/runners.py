"""Task runners by name, and the resources that each stage asks of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from tasks.config import RuntimeConfig
from tasks.errors import ConfigError


def make_runner(runtime: RuntimeConfig) -> TaskRunner[Any]:
    """The Prefect task runner that ``runtime.runner`` names.

    Raises:
        ConfigError: the runner's extra is not installed.
    """
    workers = runtime.max_workers
    if runtime.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=workers)
    if runtime.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=workers)
    try:
        if runtime.runner == "ray":
            from prefect_ray import RayTaskRunner

            local = {"num_cpus": workers, "include_dashboard": False, "log_to_driver": False}
            return RayTaskRunner(init_kwargs=local)
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise ConfigError(
            f"runtime.runner is {runtime.runner}, which is not installed ({error}); "
            f"install it with `pip install -c constraints.txt -e .[{runtime.runner}]` or choose processes"
        ) from error
    resources = {"CPU": 1, **({"GPU": 1} if runtime.device.startswith("cuda") else {})}
    cluster = {"n_workers": workers, "threads_per_worker": 1, "resources": resources, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=cluster)


@contextmanager
def resources_of(task: Any, runtime: RuntimeConfig) -> Iterator[None]:
    """Ask the runner for the CPUs and GPUs that a stage declares; local pools need no asking.

    Raises:
        ConfigError: Ray has no GPU although ``runtime.device`` is one; the task would stay pending for ever.
    """
    gpus = task.resources["gpus"] if runtime.device.startswith("cuda") else 0
    cpus = min(task.resources["cpus"], runtime.max_workers)
    if runtime.runner == "ray":
        import ray
        from prefect_ray.context import remote_options

        if gpus and ray.cluster_resources().get("GPU", 0) < gpus:
            raise ConfigError(
                f"runtime.device is {runtime.device}, but the Ray cluster has no GPU; set runtime.device=cpu or add a GPU node"
            )
        with remote_options(num_cpus=cpus, num_gpus=gpus):
            yield
    elif runtime.runner == "dask":
        import dask

        with dask.annotate(resources={"CPU": 1, **({"GPU": gpus} if gpus else {})}):
            yield
    else:
        yield
