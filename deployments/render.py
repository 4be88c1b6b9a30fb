"""Write deployments/prefect.yaml with the full validated configuration as the flow's parameter.

``python -m deployments.render ppo.beta=0.05 > deployments/prefect.yaml`` renders it for another configuration. Prefect
shows that parameter as a form with a description for every field.
"""

import sys

import yaml

from flows import environment  # noqa: F401  first: Prefect reads the environment when it is imported
from flows.config import load
from tasks.errors import PlumblineError

HEADER = """\
# Scheduled runs of the pipeline. Written by `python -m deployments.render [overrides] > deployments/prefect.yaml`;
# edit schedule and pool freely, render again when the configuration changes.
"""


def rendered(overrides: list[str]) -> str:
    """The deployment file as text.

    Raises:
        ConfigError: the overrides do not compose to a valid configuration.
    """
    config = load([*overrides, "runtime.progress=false", "tracking.run_name=scheduled"]).model_dump(mode="json")
    config["tracking"]["root"] = ".plumbline"  # not this machine's PLUMBLINE_HOME
    deployment = {
        "name": "nightly",
        "description": "The whole pipeline; stages that did not change are found in the artifact store.",
        "entrypoint": "flows/rlhf.py:rlhf",
        "tags": ["rlhf"],
        "concurrency_limit": 1,
        "work_pool": {"name": "local"},
        "schedules": [{"cron": "0 2 * * *", "timezone": "UTC", "slug": "nightly", "active": True}],
        "parameters": {"config": config},
    }
    document = {"name": "plumbline", "deployments": [deployment]}
    return HEADER + str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110))


def main() -> None:
    """Command line."""
    try:
        print(rendered(sys.argv[1:]), end="")
    except PlumblineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
