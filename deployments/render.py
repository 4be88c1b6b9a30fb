"""Write deployments/prefect.yaml with the full validated configuration as the flow's parameter.

``python -m deployments.render ppo.beta=0.05 > deployments/prefect.yaml`` renders it for another configuration. Prefect
shows that parameter as a form with a description for every field.
"""

import sys
from typing import Any

import yaml

from flows.config import load
from flows.process import environment  # noqa: F401  first: Prefect reads the environment when it is imported
from tasks.engine.errors import PlumblineError

HEADER = """\
# Deployments of the pipeline. Written by `python -m deployments.render [overrides] > deployments/prefect.yaml`;
# edit schedule and pool freely, render again when the configuration changes.
# `python -m deployments.automations`, given once, has the server schedule crashed runs again.
#
# The worker runs the code of its own folder or image. To clone it at run time instead, add here:
#   pull:
#   - prefect.deployments.steps.git_clone: {repository: "https://...", branch: main}
# To change the environment of a deployment's runs, add to its work_pool:
#   job_variables: {env: {PLUMBLINE_HOME: /data/plumbline, OMP_NUM_THREADS: "1"}}
"""
POOL = "local"
TAG = "rlhf"
"""By which `deployments.automations` knows these runs."""
NIGHTLY = {"cron": "0 2 * * *", "timezone": "UTC", "slug": "nightly", "active": True}


def deployment(name: str, description: str, overrides: list[str], schedules: list[dict[str, Any]]) -> dict[str, Any]:
    """One deployment of the flow, with the configuration that the overrides give.

    Raises:
        ConfigError: the overrides do not compose to a valid configuration.
    """
    config = load([*overrides, "runtime.progress=false", f"tracking.run_name={name}"]).model_dump(mode="json")
    if not any(override.startswith("tracking.root=") for override in overrides):
        # Of the project that the worker runs in, not this machine's PLUMBLINE_HOME.
        config["tracking"]["root"] = ".plumbline"
    return {
        "name": name,
        "description": description,
        "entrypoint": "flows/rlhf.py:rlhf",
        "tags": [TAG],
        "concurrency_limit": 1,
        "work_pool": {"name": POOL},
        "schedules": schedules,
        "parameters": {"config": config},
    }


def rendered(overrides: list[str]) -> str:
    """The deployment file as text.

    Raises:
        ConfigError: the overrides do not compose to a valid configuration.
    """
    whole = (
        "The whole pipeline every night; stages that did not change are found in the artifact store, and when none did, \
the run ends at once in the state NothingNew."
    )
    small = "The whole pipeline in a minute, to see that server and worker play together; started by hand."
    deployments = [
        deployment("nightly", whole, ["tracking.skip_when_nothing_new=true", *overrides], [NIGHTLY]),
        deployment("miniature", small, [*overrides, "scale=miniature"], []),
    ]
    document = {"name": "plumbline", "deployments": deployments}
    return HEADER + str(yaml.dump(document, Dumper=Plain, sort_keys=False, allow_unicode=True, width=110))


class Plain(yaml.SafeDumper):  # type: ignore[misc]
    """Writes equal values out instead of pointing back to the first."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def main() -> None:
    """Command line."""
    try:
        print(rendered(sys.argv[1:]), end="")
    except PlumblineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
