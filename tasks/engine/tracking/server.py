"""MLflow's client, with an end to its patience: what a server or database that is away says becomes one sentence."""

import logging
import os
import random
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from filelock import FileLock

from tasks.engine.errors import ConfigError, TrackingAway
from tasks.engine.os_errors import OF_THE_DISK, REMEDIES, readable_os_errors, refusal
from tasks.engine.urls import without_password

LOCKED_SECONDS = 60.0
"""How long a database that another process writes to is asked again."""
PROBE_SECONDS = 3.0
AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
"""MLflow's codes for what may go well later; the others refuse a request for good."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""What MLflow calls model training; else its page asks, or opens on traces."""
SEARCHES = {
    "pipelines, best first": "tags.`plumbline.role` = 'pipeline'",
    "gate passed": "tags.`plumbline.gate` = 'passed'",
    "failed": "attributes.status = 'FAILED'",
}
"""Name -> MLflow filter, saved on the page of a new experiment."""
DRIVERS = {"psycopg2": "postgres"}
"""Module that a database needs -> extra of this project that installs it."""


def mlflow_package() -> Any:
    """The package, imported when it is first needed: that takes a second or two."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # by default it tries for minutes, deaf to Ctrl-C
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import mlflow

    return mlflow


def import_mlflow() -> None:
    """Import MLflow and what its databases need now instead of at first use; it takes a second and a half."""
    mlflow_package()
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


@contextmanager
def system_metrics(uri: str, run_id: str) -> Iterator[None]:
    """MLflow's own sampling of processor, memory, disk, network and GPUs, as ``system/*`` of a run.

    The interval is ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL``, by default 10 s. A server that goes away ends the sampling.
    """
    mlflow_package()
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # the outbox tells that a server is away
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


class Client:
    """An ``MlflowClient`` whose methods raise ``TrackingAway`` where the server or database cannot be reached."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = self._call(lambda: mlflow_package().MlflowClient(tracking_uri=_patient(uri)))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._call(lambda: method(*args, **kwargs))

    def _call(self, method: Callable[[], Any]) -> Any:
        end, wait = time.monotonic() + LOCKED_SECONDS, 0.05
        while True:
            try:
                return method()
            except Exception as error:
                if "database is locked" in str(error) and time.monotonic() < end:
                    time.sleep(wait * random.uniform(0.5, 1.5))
                    wait = min(2 * wait, 2.0)
                    continue
                if is_refusal(error):
                    raise
                raise TrackingAway(_sentence(self.uri, error)) from error


def client(uri: str) -> Any:
    """An ``MlflowClient`` for a tracking URI; see ``Client``."""
    return Client(uri)


def is_refusal(error: BaseException) -> bool:
    """Whether MLflow answered, and would answer the same again."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.error_code not in AWAY


def _patient(uri: str) -> str:
    """SQLite's own wait for a lock is 5 s; a longer one would be deaf to Ctrl-C, so ``Client`` waits several times."""
    return f"{uri}?timeout=10" if uri.startswith("sqlite:///") and "?" not in uri else uri


def _sentence(uri: str, error: BaseException) -> str:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    where, number = f"MLflow tracking at {without_password(uri)}", refusal(error)
    if missing in DRIVERS:
        return f"{where}: needs {missing}, which is not installed; run `pip install -c constraints.txt -e .[{DRIVERS[missing]}]`"
    if missing:
        found = f"{where}: needs the module {missing}, which is not installed"
        return f"{found}; install it, or choose another with tracking.mlflow_uri=..."
    if number in OF_THE_DISK:
        return f"{where}: {REMEDIES[number].format(key='tracking.root=...')} ({first_line(error)})"
    if "database is locked" in str(error):
        return (
            f"{where}: other processes kept the database locked for {LOCKED_SECONDS:.0f} s; run fewer at once, or use "
            "PostgreSQL or a server with tracking.mlflow_uri=..."
        )
    return (
        f"{where}: no answer ({type(error).__name__}: {first_line(error)}); start the server or choose another with "
        "tracking.mlflow_uri=..."
    )


def is_server(uri: str) -> bool:
    """Whether tracking goes over HTTP."""
    return uri.startswith(("http://", "https://"))


def probe(uri: str) -> None:
    """Ask a tracking server whether it lives; MLflow's own client waits for longer.

    Raises:
        TrackingAway: it does not answer within seconds.
    """
    if is_server(uri):
        try:
            with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=PROBE_SECONDS):
                pass
        except Exception as error:  # of the connection, of HTTP, of the address
            raise TrackingAway(_sentence(uri, error)) from error


def runs_page(experiment_id: str) -> str:
    """Where MLflow shows an experiment's runs; a browser that is new to it would show what it has for GenAI."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def searches(experiment_id: str) -> str:
    """Markdown links to the searches of ``SEARCHES``, for the page of an experiment."""
    page = runs_page(experiment_id) + "&{}"
    asked = {"orderByKey": "metrics.`policy/win_rate_gold`", "orderByAsc": "false"}
    links = [f"[{name}]({page.format(urlencode(asked | {'searchFilter': one}))})" for name, one in SEARCHES.items()]
    return "Searches: " + " · ".join(links)


def prepare(uri: str, experiment: str, artifact_root: Path) -> str:
    """Create database and experiment if need be, one process at a time; returns the experiment id.

    MLflow's first use of an empty SQLite file is not safe against a second process, hence the lock.

    Raises:
        ArtifactError: the disk is full or may not be written.
        ConfigError: the tracking server does not answer, the database cannot be opened, or the experiment was deleted.
    """
    artifact_root.mkdir(parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints tracebacks of what it also raises
    with readable_os_errors(artifact_root), FileLock(artifact_root / ".mlflow-init.lock"):
        try:
            probe(uri)
            _create(uri, artifact_root)
            tracking = client(uri)
            found = tracking.get_experiment_by_name(experiment)
            if found is None:
                location = None if is_server(uri) else artifact_root.as_uri()  # a server has its own
                made = str(tracking.create_experiment(experiment, artifact_location=location, tags=KIND))
                tracking.set_experiment_tag(made, "mlflow.note.content", searches(made))
                return made
        except Exception as error:
            if refusal(error) in OF_THE_DISK:
                raise error.__cause__ or error from None
            if isinstance(error, TrackingAway):
                raise
            raise ConfigError(_sentence(uri, error)) from error
    if found.lifecycle_stage == "deleted":
        raise ConfigError(
            f"tracking.experiment: {experiment!r} was deleted in MLflow at {without_password(uri)}; bring it back with "
            f"`MLFLOW_TRACKING_URI={without_password(uri)} mlflow experiments restore -x {found.experiment_id}`, or choose "
            "another with tracking.experiment=..."
        )
    return str(found.experiment_id)


def _create(uri: str, artifact_root: Path) -> None:
    """Make an SQLite database that does not exist yet, whole or not at all: MLflow cannot go on with half of its tables.

    It becomes one that several processes write to: in its journal mode readers and a writer do not lock each other. The
    mode stays in the file. It holds for one machine; beyond that use a server or PostgreSQL.
    """
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not uri.startswith("sqlite:///") or path.exists():
        return
    mlflow_package()  # sets what must be set before any other part of it is imported
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    draft = path.with_name(f".{path.name}-unfinished")
    _remove(draft)  # of a killed run
    try:
        SqlAlchemyStore(f"sqlite:///{draft}", artifact_root.as_uri()).engine.dispose()
    except BaseException:
        _remove(draft)
        raise
    draft.replace(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")


def _remove(database: Path) -> None:
    """With what SQLite keeps beside it."""
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()


def first_line(error: BaseException) -> str:
    """What an exception says, short and without passwords."""
    return without_password((str(error).strip().splitlines() or [""])[0][:200])
