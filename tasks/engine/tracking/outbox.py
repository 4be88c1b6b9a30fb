"""Letters to MLflow: sent at once, or kept in a file until the server or database can take them.

Tracking must neither end nor outlive training. A letter that cannot be sent is added to a file per run below
``$PLUMBLINE_HOME/outbox``, and so is every later one of that run, so that their order is kept. They are sent when the server
is back, at the latest when the next run with the same tracking URI starts. A run that could not be made gets a name of
ours, and a file that says what MLflow called it later. What MLflow refuses for good is set aside in a file, too.
"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.engine.errors import TrackingAway
from tasks.engine.tracking.server import client, first_line, is_refusal, mlflow_package, probe
from tasks.engine.urls import without_password

Letter = dict[str, Any]
LONGEST_VALUE = 500  # MLflow's limit for tag and parameter values that every backend accepts
AT_ONCE = 100  # tags or parameters in one call
WAITING = "waiting-"
"""How the names of runs begin that MLflow does not know yet."""
ANSWER_SECONDS = 10.0
"""How long an answer counts as a sign of life."""
FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0
"""Seconds until a server that is away is asked again: doubled each time."""
logger = logging.getLogger("plumbline")


@cache
def outbox(uri: str) -> "Outbox":
    """The outbox of this process for a tracking URI."""
    home = Path(os.environ.get("PLUMBLINE_HOME") or ".plumbline")
    return Outbox(uri, home.resolve() / "outbox" / hashlib.sha256(uri.encode()).hexdigest()[:12])


def deliver(uri: str) -> str | None:
    """Send what waits for a tracking URI, of whichever process; returns a sentence about what is left, if anything is."""
    return outbox(uri).deliver_all() if uri else None


class Outbox:
    """The letters for one tracking URI; several processes share its folder."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder
        self._answered, self._asked_again, self._wait = -math.inf, 0.0, FIRST_WAIT

    @property
    def client(self) -> Any:
        """Of MLflow; made anew because it is cheap and may fail."""
        return client(self.uri)

    def post(self, run_id: str, letter: Letter) -> None:
        """Send one letter, or keep it."""
        known_as = self.known_as(run_id)
        if not self.waits(run_id) and not known_as.startswith(WAITING) and self._due():
            try:
                self._check()
                _send(self.client, known_as, letter)
                self._back()
                return
            except Exception as error:
                if is_refusal(error):
                    self._set_aside(run_id, letter, error)
                    return
                self._away(error)
        self._keep(run_id, letter)
        if self._due():
            self.deliver(run_id)

    def new_run(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
        """Make a run; returns its id, or a name of ours when it has to wait."""
        letter = {"do": "create", "experiment": experiment_id, "name": name, "tags": dict(tags), "time": _now()}
        if self._due():
            try:
                self._check()
                made = _create(self.client, letter)
                self._back()
                return made
            except Exception as error:
                if not is_refusal(error):
                    self._away(error)
        run_id = WAITING + uuid.uuid4().hex
        self._keep(run_id, letter)
        if self._due():  # it answered, and refused: the letter is set aside with its reason
            self.deliver(run_id)
        return run_id

    def known_as(self, run_id: str) -> str:
        """What MLflow calls a run that had to wait; the same id where it does not wait or still waits."""
        try:
            return self._name(run_id).read_text(encoding="utf-8")
        except OSError:
            return run_id

    def waits(self, run_id: str) -> bool:
        """Whether there are letters of a run here."""
        return self._journal(run_id).exists()

    def deliver(self, run_id: str) -> bool:
        """Send what is kept of one run, oldest first; returns whether nothing is left."""
        journal = self._journal(run_id)
        with self._lock(run_id):
            letters = _read(journal)
            while letters:
                try:
                    self._check()
                    self._send_kept(run_id, letters[0])
                except Exception as error:
                    if not is_refusal(error):
                        _write(journal, letters)
                        self._away(error)
                        return False
                    if letters[0]["do"] == "create":  # without the run there is nothing to add to
                        for letter in letters[1:]:
                            self._set_aside(run_id, letter, error)
                        del letters[1:]
                    self._set_aside(run_id, letters[0], error)
                letters.pop(0)
                self._back()
            journal.unlink(missing_ok=True)
            shutil.rmtree(self.folder / f"{run_id}-files", ignore_errors=True)
        return True

    def deliver_all(self) -> str | None:
        """Send everything; returns a sentence about what is left, if anything is."""
        for run_id in self._left(".jsonl"):
            if not self.deliver(run_id):
                break
        if waiting := self._left(".jsonl"):
            count = sum(len(_read(self._journal(run_id))) for run_id in waiting)
            return (
                f"MLflow at {without_password(self.uri)} was not told {count} entries of {len(waiting)} runs; they lie in "
                f"{self.folder}, and the next run with this server delivers them"
            )
        if refused := self._left(".refused"):
            return f"MLflow at {without_password(self.uri)} refused entries of {len(refused)} runs; they lie in {self.folder}"
        return None

    def _left(self, ending: str) -> list[str]:
        return sorted(path.name.removesuffix(ending) for path in self.folder.glob(f"[!.]*{ending}"))

    def _journal(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.jsonl"

    def _name(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.name"

    @property
    def _marker(self) -> Path:
        """There while the server is away and the user was told so."""
        return self.folder / "away"

    def _lock(self, run_id: str) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{run_id}.lock")

    def _due(self) -> bool:
        return time.monotonic() >= self._asked_again

    def _check(self) -> None:
        """Ask the short question first, unless there was an answer just now."""
        if time.monotonic() - self._answered > ANSWER_SECONDS:
            probe(self.uri)

    def _back(self) -> None:
        """Note that the server answered."""
        self._answered, self._asked_again, self._wait = time.monotonic(), 0.0, FIRST_WAIT
        if self._marker.exists():
            self._marker.unlink(missing_ok=True)
            logger.warning("MLflow at %s is back, and is told what was kept for it", without_password(self.uri))

    def _away(self, error: Exception) -> None:
        """Note that the server did not answer; the first process to see it tells the user."""
        self._asked_again, self._wait = time.monotonic() + self._wait, min(2 * self._wait, LONGEST_WAIT)
        self._answered = -math.inf
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._marker.touch(exist_ok=False)
        except OSError:
            return
        words = str(error) if isinstance(error, TrackingAway) else f"{type(error).__name__}: {first_line(error)}"
        logger.warning("%s. The run goes on; what MLflow is to know is kept in %s until it is back", words, self.folder)

    def _keep(self, run_id: str, letter: Letter) -> None:
        try:
            with self._lock(run_id):
                if letter["do"] == "file":  # the original may be gone by then
                    copied = self.folder / f"{run_id}-files" / uuid.uuid4().hex / Path(letter["path"]).name
                    copied.parent.mkdir(parents=True)
                    letter = {**letter, "path": str(shutil.copy2(letter["path"], copied))}
                with self._journal(run_id).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(letter) + "\n")
        except OSError as error:
            logger.warning("an entry for MLflow was lost, %s cannot be written: %s", self.folder, first_line(error))

    def _set_aside(self, run_id: str, letter: Letter, error: BaseException) -> None:
        refused = self.folder / f"{run_id}.refused"
        if not refused.exists():
            logger.warning("MLflow refused an entry of run %s, and training goes on: %s", run_id, first_line(error))
        self.folder.mkdir(parents=True, exist_ok=True)
        with refused.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**letter, "refused": first_line(error)}) + "\n")

    def _send_kept(self, run_id: str, letter: Letter) -> None:
        if letter["do"] != "create":
            _send(self.client, self.known_as(run_id), letter)
        elif not self._name(run_id).exists():  # a process killed in delivering may have made it
            _replace(self._name(run_id), _create(self.client, letter))


def _now() -> int:
    return int(time.time() * 1000)


def _read(journal: Path) -> list[Letter]:
    """The letters of a file; a last line that a killed process did not finish is left out."""
    found: list[Letter] = []
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _write(journal: Path, letters: list[Letter]) -> None:
    _replace(journal, "".join(json.dumps(letter) + "\n" for letter in letters))


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}-draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _create(tracking: Any, letter: Letter) -> str:
    run = tracking.create_run(
        letter["experiment"], run_name=letter["name"], tags=letter["tags"], start_time=letter["time"]
    )
    return str(run.info.run_id)


def _send(tracking: Any, run_id: str, letter: Letter) -> None:
    _SENDERS[letter["do"]](tracking, run_id, letter)


def _in_parts(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


def _send_metrics(tracking: Any, run_id: str, letter: Letter) -> None:
    make = mlflow_package().entities.Metric
    points = [make(*point) for point in letter["points"]]
    if letter["once"]:  # the process could not ask what its killed predecessor had sent
        last = logged_steps(tracking, run_id)
        points = [point for point in points if point.step > last.get(point.key, -1)]
    if points:
        tracking.log_batch(run_id, metrics=points)


def _send_params(tracking: Any, run_id: str, letter: Letter) -> None:
    make = mlflow_package().entities.Param
    for part in _in_parts([make(*item) for item in letter["values"].items()]):
        tracking.log_batch(run_id, params=part)


def _send_tags(tracking: Any, run_id: str, letter: Letter) -> None:
    make = mlflow_package().entities.RunTag
    for part in _in_parts([make(*item) for item in letter["values"].items()]):
        tracking.log_batch(run_id, tags=part)


def _send_dataset(tracking: Any, run_id: str, letter: Letter) -> None:
    make = mlflow_package().entities
    tags = [make.InputTag(key="mlflow.data.context", value=letter["context"])]
    used = [make.DatasetInput(dataset=make.Dataset(**letter["dataset"]), tags=tags)]
    try:
        tracking.log_inputs(run_id, used)
    except Exception as error:
        # MLflow looks for the dataset, then adds it: of two stages that use it first, at the same moment, one fails.
        if not re.search("unique constraint|duplicate entry", f"{error} {error.__cause__}", re.IGNORECASE):
            raise
        tracking.log_inputs(run_id, used)


_SENDERS: dict[str, Callable[[Any, str, Letter], None]] = {
    "metrics": _send_metrics,
    "params": _send_params,
    "tags": _send_tags,
    "dataset": _send_dataset,
    "file": lambda tracking, run_id, letter: tracking.log_artifact(run_id, letter["path"], letter["folder"]),
    "text": lambda tracking, run_id, letter: tracking.log_text(run_id, letter["text"], letter["name"]),
    "status": lambda tracking, run_id, letter: tracking.update_run(run_id, status=letter["status"]),
    "end": lambda tracking, run_id, letter: tracking.set_terminated(run_id, letter["status"], letter["time"]),
}


def logged_steps(tracking: Any, run_id: str) -> dict[str, int]:
    """Per metric of a run, the last step that was logged."""
    last: dict[str, int] = {}
    for name in tracking.get_run(run_id).data.metrics:
        last[name] = max(point.step for point in tracking.get_metric_history(run_id, name))
    return last
