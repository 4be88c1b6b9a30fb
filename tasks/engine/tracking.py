"""The only module that imports MLflow: one parent run per pipeline, one child run per stage.

Run ids are passed explicitly, because MLflow's active run is local to a thread and a task may run in another thread,
process or machine. Every function works on the tracking URI it is given.
"""

import json
import logging
import math
import os
import re
import sqlite3
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.engine.context import StageContext
from tasks.engine.errors import ConfigError, Interrupted
from tasks.engine.os_errors import OF_THE_DISK, readable_os_errors, refusal

logger = logging.getLogger("plumbline")
BUFFERED_METRICS = 500
LONGEST_VALUE = 500  # MLflow's limit for tag and parameter values that every backend accepts


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow  # takes a second or two, so only when needed

    return mlflow


def load() -> None:
    """Import MLflow and what its databases need now instead of at first use; it takes a second and a half."""
    _mlflow()
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def client(uri: str) -> Any:
    """An ``MlflowClient`` for a tracking URI."""
    return _mlflow().MlflowClient(tracking_uri=uri)


def prepare(uri: str, experiment: str, artifact_root: Path) -> str:
    """Create database and experiment if need be, one process at a time; returns the experiment id.

    MLflow's first use of an empty SQLite file is not safe against a second process, hence the lock.

    Raises:
        ArtifactError: the disk is full or may not be written.
        ConfigError: the tracking server does not answer or the database cannot be opened.
    """
    artifact_root.mkdir(parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints tracebacks of what it also raises
    with readable_os_errors(artifact_root), FileLock(artifact_root / ".mlflow-init.lock"):
        try:
            _probe(uri)
            _create(uri, artifact_root)
            tracking = client(uri)
            found = tracking.get_experiment_by_name(experiment)
            if found is not None:
                return str(found.experiment_id)
            location = (
                None if uri.startswith(("http://", "https://")) else artifact_root.as_uri()
            )  # a server has its own
            return str(tracking.create_experiment(experiment, artifact_location=location))
        except Exception as error:
            if refusal(error) in OF_THE_DISK:
                raise
            raise ConfigError(
                f"MLflow tracking at {uri}: no answer ({type(error).__name__}: {_first_line(error)}); start the server or "
                "choose another with tracking.mlflow_uri=..."
            ) from error


def _probe(uri: str) -> None:
    """Ask a tracking server whether it lives; MLflow's own client would retry for minutes."""
    if uri.startswith(("http://", "https://")):
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=10):
            pass


def _create(uri: str, artifact_root: Path) -> None:
    """Make an SQLite database that does not exist yet, whole or not at all: MLflow cannot go on with half of its tables.

    It becomes one that several processes write to: in its journal mode readers and a writer do not lock each other. The
    mode stays in the file. It holds for one machine; beyond that use a server or PostgreSQL.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    _mlflow()  # sets what must be set before any other part of it is imported
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested configuration -> ``{"ppo.beta": "0.02"}``, spelled as on the command line."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = "null" if value is None else str(value)[:LONGEST_VALUE]
    return flat


class RunLog:
    """Writes to one MLflow run, with metrics buffered so that tracking stays off the hot path."""

    def __init__(self, uri: str, run_id: str, *, is_new: bool = False) -> None:
        self.uri, self.run_id = uri, run_id
        self._client = client(uri)
        self._pending: list[Any] = []
        self._last_step: dict[str, int] | None = {} if is_new else None

    def _logged_steps(self) -> dict[str, int]:
        """Per metric, the last step that a killed predecessor has logged already."""
        last: dict[str, int] = {}
        for name in self._client.get_run(self.run_id).data.metrics:
            history = self._client.get_metric_history(self.run_id, name)
            last[name] = max(point.step for point in history)
        return last

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of one step; values that a resumed run repeats are dropped."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        if self._last_step is None:  # asked for only when metrics are logged: it costs one query a metric
            self._last_step = self._logged_steps()
        for name, value in values.items():
            if step > self._last_step.get(name, -1):
                self._pending.append(Metric(name, float(value), now, step))
                self._last_step[name] = step
        if len(self._pending) >= BUFFERED_METRICS:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        while self._pending:
            batch, self._pending = self._pending[:BUFFERED_METRICS], self._pending[BUFFERED_METRICS:]
            self._client.log_batch(self.run_id, metrics=batch)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log a nested configuration as flat parameters."""
        from mlflow.entities import Param

        items = [Param(name, value) for name, value in flatten(values).items()]
        for start in range(0, len(items), 100):
            self._client.log_batch(self.run_id, params=items[start : start + 100])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, all in one call."""
        from mlflow.entities import RunTag

        items = [RunTag(name, value[:LONGEST_VALUE]) for name, value in values.items()]
        for start in range(0, len(items), 100):
            self._client.log_batch(self.run_id, tags=items[start : start + 100])

    def file(self, path: Path, folder: str | None = None) -> None:
        """Store a file as an artifact of the run."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        """Store text as an artifact of the run."""
        self._client.log_text(self.run_id, text, name)

    def dataset(self, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Record a dataset input: what it is called, its digest, where it lies, and what it was used for."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.exceptions import MlflowException

        origin, profile = json.dumps({"uri": source}), json.dumps({"num_rows": rows})
        entity = Dataset(name=name, digest=digest[:36], source_type="local", source=origin, profile=profile)
        used = [DatasetInput(dataset=entity, tags=[InputTag(key="mlflow.data.context", value=context)])]
        try:
            self._client.log_inputs(self.run_id, used)
        except MlflowException as error:
            # MLflow looks for the dataset, then adds it: of two stages that use it first, at the same moment, one fails.
            if not re.search("unique constraint|duplicate entry", str(error), re.IGNORECASE):
                raise
            self._client.log_inputs(self.run_id, used)

    def finish(self, status: str) -> None:
        """Flush and end the run with an MLflow status such as FINISHED or FAILED."""
        self.flush()
        self._client.set_terminated(self.run_id, status)


class NoLog(RunLog):
    """The same interface with tracking off."""

    def __init__(self) -> None:
        self.uri, self.run_id = "", ""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Nothing."""

    def file(self, path: Path, folder: str | None = None) -> None:
        """Nothing."""

    def text(self, text: str, name: str) -> None:
        """Nothing."""

    def dataset(self, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Nothing."""

    def finish(self, status: str) -> None:
        """Nothing."""


def start_pipeline_run(
    uri: str, experiment_id: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    """Open the parent run of one pipeline; returns its id."""
    return _start_run(uri, experiment_id, "pipeline", name, params, tags)


def start_sweep_run(uri: str, experiment_id: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Open the parent run of the pipelines of a sweep; returns its id."""
    return _start_run(uri, experiment_id, "sweep", name, params, tags)


def _start_run(
    uri: str, experiment_id: str, role: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    run = client(uri).create_run(experiment_id, run_name=name, tags={**tags, "plumbline.role": role})
    RunLog(uri, run.info.run_id, is_new=True).params(params)
    return str(run.info.run_id)


def open_run(uri: str, run_id: str) -> RunLog:
    """Write to an existing run; an empty URI gives a log that writes nowhere."""
    return RunLog(uri, run_id) if uri else NoLog()


def _usable_run(context: StageContext, remembered: str) -> str | None:
    """The run a killed predecessor wrote to, when it still exists here and belongs to no finished pipeline."""
    from mlflow.exceptions import MlflowException

    try:
        run = client(context.tracking_uri).get_run(remembered)
    except MlflowException:
        return None
    return remembered if run.info.status != "FINISHED" and run.info.lifecycle_stage == "active" else None


@contextmanager
def stage_run(
    context: StageContext, stage: str, params: Mapping[str, Any], tags: Mapping[str, str], memory: Path
) -> Iterator[RunLog]:
    """The child run of one stage; a stage that was killed goes on in the run it had.

    Args:
        context: where to track and under which parent.
        stage: name of the child run.
        params: the stage's configuration, as it is spelled in the pipeline's.
        tags: digests of the inputs and the like.
        memory: small file that remembers the run id until the stage is done.
    """
    if not context.tracking_uri:
        yield NoLog()
        return
    tracking = client(context.tracking_uri)
    remembered = memory.read_text(encoding="utf-8").strip() if memory.is_file() else ""
    run_id = _usable_run(context, remembered) if remembered else None
    if run_id is None:
        created = tracking.create_run(
            context.experiment_id,
            run_name=stage,
            tags={
                "mlflow.parentRunId": context.parent_run_id,
                "plumbline.role": "stage",
                "plumbline.stage": stage,
                **tags,
            },
        )
        run_id = str(created.info.run_id)
        log = RunLog(context.tracking_uri, run_id, is_new=True)
        log.params(params)
        memory.write_text(run_id, encoding="utf-8")  # last: a run that is remembered has its parameters
    else:
        log = RunLog(context.tracking_uri, run_id)
        tracking.update_run(run_id, status="RUNNING")
        log.tags({"mlflow.parentRunId": context.parent_run_id, "plumbline.resumed": "true", **tags})
    try:
        yield log
    except BaseException as error:
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)  # Ctrl-C and termination are none
        try:
            log.tags({"plumbline.error": _first_line(error)})
            log.finish("KILLED" if stopped else "FAILED")
        except Exception as second:  # the disk that stopped the stage may hold the database too
            logger.warning("MLflow run %s could not be closed: %s", run_id, _first_line(second))
        raise
    log.finish("FINISHED")


def record_reuse(
    context: StageContext,
    stage: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    made_by: str,
) -> None:
    """A child run for a stage that did not have to run, with the metrics of the run that made the artifact."""
    if not context.tracking_uri:
        return
    kind = {"plumbline.role": "stage", "plumbline.stage": stage, "plumbline.reused": "true"}
    source = {"mlflow.parentRunId": context.parent_run_id, "plumbline.made_by_run": made_by}
    run = client(context.tracking_uri).create_run(
        context.experiment_id, run_name=stage, tags=kind | source | dict(tags)
    )
    log = RunLog(context.tracking_uri, run.info.run_id, is_new=True)
    log.params(params)
    log.metrics({name: value for name, value in metrics.items() if math.isfinite(value)})
    log.finish("FINISHED")


def parent_of(uri: str, run_id: str) -> str | None:
    """Id of the run that a run belongs to; None when there is no such run here."""
    from mlflow.exceptions import MlflowException

    try:
        return client(uri).get_run(run_id).data.tags.get("mlflow.parentRunId") if uri and run_id else None
    except MlflowException:
        return None


def start_study_run(
    uri: str, experiment_id: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str], memory: Path
) -> str:
    """The run that the pipelines of a study hang under; a study that is called again goes on in the run it had.

    Args:
        uri: MLflow tracking URI.
        experiment_id: where a new run is made.
        name: of a new run.
        params: of a new run.
        tags: set in either case.
        memory: small file that remembers the run id.
    """
    from mlflow.exceptions import MlflowException

    if memory.is_file():
        run_id = memory.read_text(encoding="utf-8").strip()
        try:
            if client(uri).get_run(run_id).info.lifecycle_stage == "active":
                client(uri).update_run(run_id, status="RUNNING")
                RunLog(uri, run_id).tags(tags)
                return run_id
        except MlflowException:
            pass  # of another tracking server, or removed
    run = client(uri).create_run(experiment_id, run_name=name, tags={**tags, "plumbline.role": "study"})
    RunLog(uri, run.info.run_id).params(params)
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(run.info.run_id, encoding="utf-8")
    return str(run.info.run_id)
