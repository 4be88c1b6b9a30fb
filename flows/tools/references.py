"""Which artifacts MLflow still speaks of: those of runs that exist, and those behind registered models."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from tasks.engine.errors import ConfigError
from tasks.engine.tracking import client

PAGE = 1000


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run that is not deleted."""

    run_id: str
    name: str
    parent: str
    """Id of the run it belongs to; empty for the run of a whole pipeline."""
    artifact: str
    """``stage/fingerprint`` that it made, used, or was making; empty for runs that are no stage."""
    started: int
    """Milliseconds since 1970."""


class References:
    """The runs and registered models of one MLflow server or database.

    Args:
        uri: of MLflow.
        store: root of the artifact store, where a registered version may lie.

    Raises:
        ConfigError: it does not answer.
    """

    def __init__(self, uri: str, store: Path) -> None:
        self.uri = uri
        self.runs: dict[str, TrackedRun] = {}
        self.models: dict[str, tuple[str, list[str]]] = {}
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
            return  # MLflow would create it
        try:
            tracking = client(uri)
            experiments = [item.experiment_id for item in _every_page(tracking.search_experiments)]
            found = _every_page(tracking.search_runs, experiments) if experiments else []
            self.runs = {run.info.run_id: _tracked(run) for run in found}
            self.models = {
                f"{version.name} version {version.version}": (
                    version.run_id or "",
                    [(version.tags or {}).get("artifact", ""), _key_below(store, version.source or "")],
                )
                for version in _every_page(tracking.search_model_versions)
            }
        except Exception as error:
            raise ConfigError(
                f"MLflow tracking at {uri}: no answer ({type(error).__name__}: {str(error).splitlines()[0][:200]}); without "
                "it nobody knows what is still referenced; start the server or choose another with tracking.mlflow_uri=..."
            ) from error

    def by_artifact(self) -> dict[str, list[str]]:
        """``stage/fingerprint`` -> names of the pipeline runs and registered models that speak of it, oldest first."""
        found: dict[str, list[str]] = {}
        for run in sorted(self.runs.values(), key=lambda run: run.started):
            if run.artifact:
                top = self._top(run)
                _add(found, run.artifact, f"{top.name} ({top.run_id[:8]})")
        for name, keys in self.by_model().items():
            for key in keys:
                _add(found, key, name)
        return found

    def by_model(self) -> dict[str, set[str]]:
        """Registered model version -> artifacts of its run and that run's stages, that it is, and that it was made from."""
        found = {}
        for name, (run_id, keys) in self.models.items():
            of_run = self.of_runs([run_id]) if run_id in self.runs else set()
            found[name] = of_run | {key for key in keys if key}
        return found

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Ids of the runs that are called by id, by the beginning of an id, or by name.

        Raises:
            ConfigError: no run is called so.
        """
        ids: list[str] = []
        for name in names:
            matching = [
                run.run_id
                for run in self.runs.values()
                if run.name == name or (len(name) >= 6 and run.run_id.startswith(name))
            ]
            if not matching:
                raise ConfigError(
                    f"--keep-run {name}: MLflow at {self.uri} has no run with this name or id; see the names with "
                    "`python -m flows.store list`"
                )
            ids.extend(matching)
        return ids

    def of_runs(self, run_ids: Iterable[str]) -> set[str]:
        """Artifacts of these runs and of every run below them."""
        wanted, pending = set(), set(run_ids)
        below: dict[str, list[str]] = {}
        for run in self.runs.values():
            below.setdefault(run.parent, []).append(run.run_id)
        while pending:
            run_id = pending.pop()
            if run_id not in wanted:
                wanted.add(run_id)
                pending.update(below.get(run_id, []))
        return {self.runs[run_id].artifact for run_id in wanted if self.runs[run_id].artifact}

    def _top(self, run: TrackedRun) -> TrackedRun:
        """The run that a stage belongs to."""
        return self.runs.get(run.parent, run)


def _tracked(run: Any) -> TrackedRun:
    tags = run.data.tags
    key = (
        f"{tags['plumbline.stage']}/{tags['fingerprint']}" if {"plumbline.stage", "fingerprint"} <= tags.keys() else ""
    )
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        parent=tags.get("mlflow.parentRunId", ""),
        artifact=key,
        started=run.info.start_time or 0,
    )


def _key_below(store: Path, source: str) -> str:
    """The artifact that a model version's source lies in; empty when that is elsewhere."""
    path = Path(unquote(urlparse(source).path))
    if not source.startswith(("file:", "/")) or not path.is_relative_to(store):
        return ""
    return "/".join(path.relative_to(store).parts[:2])


def _add(found: dict[str, list[str]], key: str, name: str) -> None:
    names = found.setdefault(key, [])
    if name not in names:
        names.append(name)


def _every_page(search: Any, *arguments: Any) -> list[Any]:
    """All results of a paged MLflow search."""
    items: list[Any] = []
    token = None
    while True:
        page = search(*arguments, max_results=PAGE, page_token=token)
        items.extend(page)
        token = page.token
        if not token:
            return items
