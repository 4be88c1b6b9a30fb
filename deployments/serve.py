"""The pipeline on a schedule, or ready to be started from the page, without a work pool.

``python -m deployments.serve ppo.beta=0.1 --cron "0 2 * * *"`` serves until it is stopped. It needs a Prefect server:
``PREFECT_API_URL``.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from flows.process import environment  # noqa: F401  first: Prefect reads the environment when it is imported

from deployments.render import TAG, deployment  # isort: skip
from flows.parser import Parser
from tasks.engine.errors import ConfigError, PlumblineError

NAME = "served"


def arguments(typed: Sequence[str]) -> dict[str, Any]:
    """What ``flow.serve`` gets.

    Raises:
        ConfigError: no server is named, or the overrides do not compose to a valid configuration.
    """
    parser = Parser(prog="python -m deployments.serve", description=__doc__)
    parser.add_argument("--cron", help="when to run, such as '0 2 * * *'; without it, by hand")
    parser.add_argument("overrides", nargs="*", help="of the pipeline's configuration")
    given = parser.parse_intermixed_args(typed)
    if "PREFECT_API_URL" not in os.environ:
        raise ConfigError(
            "PREFECT_API_URL is not set, and a schedule needs a Prefect server that stays; start one with `prefect server "
            "start` and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    parameters = deployment(NAME, "", given.overrides, [])["parameters"]
    return {"name": NAME, "parameters": parameters, "cron": given.cron, "tags": [TAG], "limit": 1}


def main() -> None:
    """Command line."""
    try:
        asked = arguments(sys.argv[1:])
    except PlumblineError as error:
        sys.exit(f"error: {error}")
    from flows.rlhf import rlhf

    rlhf.serve(**asked)


if __name__ == "__main__":
    main()
