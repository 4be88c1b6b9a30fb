"""Which point of a sweep gets the alias of the registered model."""

from collections.abc import Sequence

from flows.sweep.findings import Findings, best_of
from flows.sweep.record import SweepRecord, SweptPoint
from tasks.engine.registry import move_alias
from tasks.engine.tracking import open_run
from tasks.gate.config import GateConfig


def promote_best(sweep: SweepRecord, points: Sequence[SweptPoint], findings: Findings, gate: GateConfig) -> str | None:
    """Move the alias to the best of the points that passed the gate, and say so.

    Best is meant as on the sweep's page: highest quality among those that keep ``sweep.max_regression``.

    Args:
        sweep: the sweep, which is over.
        points: its points.
        findings: of the finished ones.
        gate: names the registered model and the alias.

    Returns:
        The version that the alias means now; None when it stays where it was.
    """
    if gate.model_name is None:
        return None
    passed = {point.number: point for point in points if point.version is not None}
    comparable = findings.judge is not None
    values = {number: found for number, found in findings.values.items() if comparable and number in passed}
    best = best_of(values, sweep.weighing)
    log = open_run(sweep.tracking_uri, sweep.run_id)
    if best is None:
        why = f"no point passed the gate within sweep.max_regression={sweep.weighing.max_regression:g}"
        print(f"{gate.model_name}   {gate.alias} stays where it was: {why}")
        log.tags({f"plumbline.{gate.alias}": "unchanged"})
        return None
    version = str(passed[best].version)
    move_alias(sweep.tracking_uri, gate.model_name, gate.alias, version)
    print(f"release  {gate.model_name} version {version}, {gate.alias}: {passed[best].label}")
    log.tags({f"plumbline.{gate.alias}": f"version {version}, {passed[best].label}"})
    return version
