"""What the project writes into MLflow: runs of pipelines, stages, sweeps and studies.

Run ids are passed explicitly, because MLflow's active run is local to a thread and a task may run in another thread,
process or machine. Every function works on the tracking URI it is given. Writing never fails: see ``outbox``.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tasks.engine.context import StageContext
from tasks.engine.errors import Interrupted, TrackingAway
from tasks.engine.tracking.outbox import LONGEST_VALUE, logged_steps, outbox
from tasks.engine.tracking.server import client, first_line, is_refusal, system_metrics

BUFFERED_METRICS = 500
LONGEST_NOTE = 5000  # MLflow's limit for a tag


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
        self._pending: list[tuple[str, float, int, int]] = []
        self._last_step: dict[str, int] | None = {} if is_new else None
        self._once = False

    def _post(self, what: str, **content: Any) -> None:
        outbox(self.uri).post(self.run_id, {"do": what, **content})

    def _logged_steps(self) -> dict[str, int]:
        """Per metric, the last step that a killed predecessor has logged already."""
        box = outbox(self.uri)
        try:
            if box.waits(self.run_id):
                raise TrackingAway
            return logged_steps(client(self.uri), box.known_as(self.run_id))
        except Exception as error:
            self._once = not is_refusal(error)  # it is asked when the metrics are delivered
            return {}

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of one step; values that a resumed run repeats are dropped."""
        now = int(time.time() * 1000)
        if self._last_step is None:  # asked for only when metrics are logged: it costs one query a metric
            self._last_step = self._logged_steps()
        for name, value in values.items():
            if step > self._last_step.get(name, -1):
                self._pending.append((name, float(value), now, step))
                self._last_step[name] = step
        if len(self._pending) >= BUFFERED_METRICS:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        while self._pending:
            batch, self._pending = self._pending[:BUFFERED_METRICS], self._pending[BUFFERED_METRICS:]
            self._post("metrics", points=batch, once=self._once)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log a nested configuration as flat parameters."""
        self._post("params", values=flatten(values))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._post("tags", values={name: value[:LONGEST_VALUE] for name, value in values.items()})

    def note(self, markdown: str) -> None:
        """What the run's page in MLflow shows first; longer than other tags may be."""
        self._post("tags", values={"mlflow.note.content": markdown[:LONGEST_NOTE]})

    def file(self, path: Path, folder: str | None = None) -> None:
        """Store a file as an artifact of the run."""
        self._post("file", path=str(path), folder=folder)

    def text(self, text: str, name: str) -> None:
        """Store text as an artifact of the run."""
        self._post("text", text=text, name=name)

    def dataset(self, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Record a dataset input: what it is called, its digest, where it lies, and what it was used for."""
        origin, profile = json.dumps({"uri": source}), json.dumps({"num_rows": rows})
        entity = {"name": name, "digest": digest[:36], "source_type": "local", "source": origin, "profile": profile}
        self._post("dataset", dataset=entity, context=context)

    def running(self) -> None:
        """Show a run that goes on as running."""
        self._post("status", status="RUNNING")

    def finish(self, status: str) -> None:
        """Flush and end the run with an MLflow status such as FINISHED or FAILED."""
        self.flush()
        self._post("end", status=status, time=int(time.time() * 1000))


class NoLog(RunLog):
    """The same interface with tracking off."""

    def __init__(self) -> None:
        super().__init__("", "", is_new=True)

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

    def note(self, markdown: str) -> None:
        """Nothing."""

    def text(self, text: str, name: str) -> None:
        """Nothing."""

    def dataset(self, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Nothing."""

    def running(self) -> None:
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


def knows(uri: str, run_id: str) -> bool:
    """Whether a run exists here, or will when its letters are delivered; one that nobody can be asked about counts."""
    return bool(uri and run_id) and _alive(uri, run_id, ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"))


def _alive(uri: str, run_id: str, states: tuple[str, ...]) -> bool:
    box = outbox(uri)
    if box.waits(run_id):
        return True
    try:
        run = client(uri).get_run(box.known_as(run_id))
    except TrackingAway:
        return True
    except Exception as error:
        if not is_refusal(error):
            raise
        return False
    return run.info.status in states and run.info.lifecycle_stage == "active"


def _usable_run(context: StageContext, remembered: str) -> str | None:
    """The run a killed predecessor wrote to, when it still exists here and belongs to no finished pipeline."""
    unfinished = ("RUNNING", "SCHEDULED", "FAILED", "KILLED")
    return remembered if _alive(context.tracking_uri, remembered, unfinished) else None


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
    remembered = memory.read_text(encoding="utf-8").strip() if memory.is_file() else ""
    run_id = _usable_run(context, remembered) if remembered else None
    if run_id is None:
        kind = {
            "mlflow.parentRunId": context.parent_run_id,
            "plumbline.role": "stage",
            "plumbline.stage": stage,
        }
        run_id = outbox(context.tracking_uri).new_run(context.experiment_id, stage, kind | dict(tags))
        log = RunLog(context.tracking_uri, run_id, is_new=True)
        log.params(params)
        memory.write_text(run_id, encoding="utf-8")  # last: a run that is remembered has its parameters
    else:
        log = RunLog(context.tracking_uri, run_id)
        log.running()
        log.tags({"mlflow.parentRunId": context.parent_run_id, "plumbline.resumed": "true", **tags})
    # A run that waits for its server to come back cannot be sampled into.
    sampled = context.system_metrics and not outbox(context.tracking_uri).waits(run_id)
    try:
        with system_metrics(context.tracking_uri, run_id) if sampled else nullcontext():
            yield log
    except BaseException as error:
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)  # Ctrl-C and termination are none
        log.tags({"plumbline.error": first_line(error)})
        log.finish("KILLED" if stopped else "FAILED")
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
    box = outbox(context.tracking_uri)
    source = {"mlflow.parentRunId": context.parent_run_id, "plumbline.made_by_run": box.known_as(made_by)}
    run_id = box.new_run(context.experiment_id, stage, kind | source | dict(tags))
    log = RunLog(context.tracking_uri, run_id, is_new=True)
    log.params(params)
    log.metrics({name: value for name, value in metrics.items() if math.isfinite(value)})
    log.finish("FINISHED")


def parent_of(uri: str, run_id: str) -> str | None:
    """Id of the run that a run belongs to; None when there is no such run here."""
    try:
        run = client(uri).get_run(outbox(uri).known_as(run_id)) if uri and run_id else None
    except Exception as error:
        if not is_refusal(error):
            raise
        return None
    return run.data.tags.get("mlflow.parentRunId") if run else None


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
    if memory.is_file():
        run_id = memory.read_text(encoding="utf-8").strip()
        if knows(uri, run_id):  # else it is of another tracking server, or removed
            log = RunLog(uri, run_id)
            log.running()
            log.tags(tags)
            return run_id
    run = client(uri).create_run(experiment_id, run_name=name, tags={**tags, "plumbline.role": "study"})
    RunLog(uri, run.info.run_id).params(params)
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(run.info.run_id, encoding="utf-8")
    return str(run.info.run_id)
