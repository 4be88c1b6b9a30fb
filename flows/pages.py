"""The Prefect and the MLflow page of this project: `python -m flows.pages prefect` or `python -m flows.pages mlflow`.

Both read the databases that the pipeline writes, and listen on this machine only.
"""

import os
import socket
import sys

from flows.config import load
from flows.parser import Parser
from flows.process import environment  # first: sets where the databases lie
from tasks.engine.errors import ConfigError, PlumblineError, TrackingAway
from tasks.engine.os_errors import probe
from tasks.engine.tracking.server import client, runs_page

PORTS = {"prefect": 4200, "mlflow": 5000}


def check_port(port: int) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        ConfigError: the port is taken, or is none.
    """
    if not 0 < port < 2**16:
        raise ConfigError(f"--port: found {port}, expected 1 to {2**16 - 1}; choose another")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"port {port} on 127.0.0.1 is in use; choose another with --port") from error


def command(page: str, port: int, overrides: list[str]) -> list[str]:
    """The server's command line."""
    if page == "prefect":
        # Without this the page asks the API on Prefect's default port, whatever port it is served on.
        os.environ["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{port}/api"
        os.environ.update(environment.closed_to_other_pages(port))
        os.environ.pop("PREFECT_API_URL", None)
        return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    tracking = load(overrides).tracking
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    store = ["--backend-store-uri", tracking.uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    doors = [
        "--allowed-hosts",
        f"127.0.0.1:{port},localhost:{port}",
        "--cors-allowed-origins",
        environment.origins(port),
    ]
    return [sys.executable, "-m", "mlflow", "server", *store, *doors]


def runs(overrides: list[str]) -> str:
    """Where MLflow's page shows this configuration's runs; empty before the first one."""
    tracking = load(overrides).tracking
    try:
        found = client(tracking.uri).get_experiment_by_name(tracking.experiment)
    except TrackingAway:  # whatever is wrong with the database, the server that is started next reports
        return ""
    return runs_page(found.experiment_id) if found is not None else ""


def main() -> None:
    """Command line."""
    parser = Parser(prog="python -m flows.pages", description=__doc__.splitlines()[0])
    parser.add_argument("page", choices=sorted(PORTS))
    parser.add_argument("--port", type=int, help="default: 4200 for prefect, 5000 for mlflow")
    parser.add_argument("overrides", nargs="*", help="the run's overrides, if they changed tracking.*")
    given = parser.parse_intermixed_args()
    port = given.port or PORTS[given.page]
    try:
        check_port(port)
        probe(environment.HOME)
        arguments = command(given.page, port, given.overrides)
    except PlumblineError as error:
        sys.exit(f"error: {error}")
    path = runs(given.overrides) if given.page == "mlflow" else ""
    print(f"{given.page}: http://127.0.0.1:{port}/{path}   (Ctrl-C ends it)", flush=True)
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    main()
