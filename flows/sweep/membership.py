"""Which point of which sweep the pipeline of this thread is, and what its MLflow run shows of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from tasks.engine.tracking import flatten

NOT_COMPARED = ("tracking", "sweep")  # where results lie, and how a sweep weighs its points


class Membership(NamedTuple):
    """A point under way."""

    parent_run_id: str
    sweep: str
    number: int
    values: Mapping[str, str] | None
    """Swept key -> value, as on the command line; None when the points are not told apart by keys."""


_POINT: ContextVar[Membership | None] = ContextVar("point under way", default=None)


@contextmanager
def as_point(parent_run_id: str, sweep: str, number: int, values: Mapping[str, str] | None = None) -> Iterator[None]:
    """Runs started inside become children of the sweep's run."""
    before = _POINT.set(Membership(parent_run_id, sweep, number, values))
    try:
        yield
    finally:
        _POINT.reset(before)


def point_tags() -> dict[str, str]:
    """Tags that make a pipeline run a child of its sweep; none outside a sweep."""
    point = _POINT.get()
    if point is None:
        return {}
    return {
        "mlflow.parentRunId": point.parent_run_id,
        "plumbline.sweep": point.sweep,
        "plumbline.point": str(point.number),
    }


def is_point() -> bool:
    """Whether the pipeline of this thread is a point of a sweep."""
    return _POINT.get() is not None


def has_name() -> bool:
    """Whether the pipeline of this thread is a point that its sweep calls by a name, not by swept keys."""
    point = _POINT.get()
    return point is not None and point.values is None


def compared_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a pipeline run: the configuration, or for a point of a sweep the swept keys alone.

    MLflow's plots start with the first parameters by name, and a contour over one that is the same everywhere stays empty.
    What the points have in common stands in their stages' runs.
    """
    values = _values()
    compared = {name: value for name, value in config.items() if name not in NOT_COMPARED}
    if values is None:
        return compared
    flat = flatten(compared)
    return {knob: flat.get(knob, value) for knob, value in values.items()}


def compared_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Final metrics of a pipeline run: those whose names do not depend on its knobs, so that lists and comparisons of runs open
    on them. Every other figure is a metric of the run of the stage ``evaluation``."""
    return {name: value for name, value in metrics.items() if name.startswith("policy/")}


def _values() -> Mapping[str, str] | None:
    point = _POINT.get()
    return point.values if point is not None else None
