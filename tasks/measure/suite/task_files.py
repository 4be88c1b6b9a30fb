"""The task files of the suite, read and checked, without the harness itself."""

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from tasks.engine.errors import ConfigError
from tasks.measure.suite.config import SUITE, TASK_FILES, SuiteConfig
from tasks.measure.suite.rows import SUFFIXES


class FigureText(BaseModel):
    """How one number of a safety task is called."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    unit: Literal["share", "probability", "bits"]


class TaskNotes(BaseModel):
    """What a task file says beyond the harness's own keys, under ``metadata``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Data file without its ending."""
    row: str
    """Reader of its rows, a function of rows.py."""
    text: str
    """Jinja template of a question, over the row's fields and the layout's ``prefix``."""
    continuation: str = ""
    """Template of what is scored, where it is not an answer or a choice."""
    shots: int
    """Examples before each question, as in the paper."""
    layouts: list[str] = ["plain"]
    """Prompt types, by their names in layouts.py; each becomes a task of its own."""
    metric: str = ""
    """Which score counts as the benchmark's; empty for a safety task."""
    figures: dict[str, FigureText] = {}
    """Scores that are safety figures."""
    scorer: str | None = None
    """Who judges a safety task's texts."""


class SuiteTask(NamedTuple):
    """One task in one layout."""

    name: str
    family: str
    """The name without its layout."""
    layout: str
    notes: TaskNotes
    config: dict[str, Any]
    """The harness's keys."""

    @property
    def answer_tokens(self) -> int:
        """Longest generated answer; 0 for a task that only scores."""
        return int(self.config.get("generation_kwargs", {}).get("max_gen_toks", 0))


@lru_cache(maxsize=1)
def suite_tasks() -> tuple[SuiteTask, ...]:
    """Every task of the suite, in the order of the files' names."""
    found = []
    for path in sorted(TASK_FILES.glob("*.yaml")):
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        notes = TaskNotes.model_validate(config.pop("metadata"))
        for layout in notes.layouts:
            name = config["task"] if notes.layouts == ["plain"] else f"{config['task']}_{layout}"
            found.append(SuiteTask(name, config["task"], layout, notes, {**config, "task": name}))
    return tuple(found)


def data_file(folder: str, notes: TaskNotes) -> Path | None:
    """Where the task's rows are; None when the folder has no such file."""
    root = Path(folder).expanduser()
    return next((path for suffix in SUFFIXES if (path := root / f"{notes.file}{suffix}").is_file()), None)


def chosen(config: SuiteConfig) -> tuple[list[SuiteTask], list[str]]:
    """Tasks of the suite that are asked for and whose file is there, and the files that are not.

    Raises:
        ConfigError: a name of the suite that no task has.
    """
    tasks = suite_tasks()
    known = {SUITE, *(task.name for task in tasks), *(task.family for task in tasks)}
    unknown = [name for name in config.of_suite if name not in known]
    if unknown:
        raise ConfigError(f"evaluation.suite.tasks: no task {unknown[0]!r}; expected {', '.join(sorted(known))}")
    asked = [task for task in tasks if {SUITE, task.name, task.family} & set(config.of_suite)]
    present = [task for task in asked if data_file(str(config.folder), task.notes)]
    kept = {task.notes.file for task in present}
    return present, sorted({f"{task.notes.file}{SUFFIXES[0]}" for task in asked if task.notes.file not in kept})


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is not typed
    """Plain YAML and ``!function module.name``, as the harness writes it."""


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    module, _, name = str(node.value).rpartition(".")
    return getattr(importlib.import_module(module), name)


_Loader.add_constructor("!function", _function)
