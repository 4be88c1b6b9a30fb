"""What the points of a sweep say: who is on the Pareto front, who is dominated by whom, which one is best."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flows.sweep.caveats import caveats, chosen_by_its_judge
from flows.sweep.config import SweepConfig
from flows.sweep.pareto import dominated_by
from flows.sweep.record import SweptPoint
from tasks.results.judges import JUDGES

TITLES = {"win_rate": "win rate", "score": "mean score", "kl": "KL", "regression": "benchmark regression"}
BASELINES = {"sft": "SFT", "base": "the base model"}
MAXIMISED = ("win_rate", "score")
ROUNDING = 1e-9  # a loss of exactly the permitted share may come out a rounding error above it


class Findings(NamedTuple):
    """The points, weighed."""

    judge: str | None
    """Whose quality was used; None when no judge judged every finished point."""
    objectives: list[str]
    """Names of what was compared; the quality first."""
    values: dict[int, dict[str, float]]
    """Point -> objective -> value, for every finished point; what was not measured is left out."""
    dominated: dict[int, list[int]]
    """Point -> the points that dominate it; empty for the front. Finished points only."""
    best: int | None
    """Highest quality within the constraint."""
    verdict: str
    notes: list[str]

    @property
    def front(self) -> list[int]:
        """Points that no other dominates."""
        return [point for point, better in self.dominated.items() if not better]


def measured(metrics: Mapping[str, float], judge: str, config: SweepConfig) -> dict[str, float]:
    """A point's objectives, as far as they were measured. Regression is a loss: negative is a gain."""
    names = {
        "win_rate": f"policy/win_rate_{judge}",
        "score": f"policy/score_{judge}",
        "kl": "policy/kl",
        "regression": f"policy/benchmarks_vs_{config.regression_against}",
    }
    found = {name: metrics[metric] for name, metric in names.items() if metric in metrics}
    if "regression" in found:
        found["regression"] = 0.0 - found["regression"]  # not -x, which makes a minus zero
    return found


def judge_of(points: Sequence[Mapping[str, float]], config: SweepConfig) -> str | None:
    """The first judge in order of preference whose verdict every point has."""
    for judge in config.judges:
        if points and all(config.quality in measured(metrics, judge, config) for metrics in points):
            return judge
    return None


def weigh(records: Sequence[SweptPoint], config: SweepConfig) -> Findings:
    """Compare the finished points."""
    finished = [point for point in records if point.state == "finished"]
    judge = judge_of([point.metrics for point in finished], config)
    values = {point.number: measured(point.metrics, judge or "", config) for point in finished}
    costs = [name for name in config.costs if all(name in found for found in values.values())]
    notes = [
        f"{TITLES[name]} was not measured for every point and is left out of the comparison"
        for name in config.costs
        if name not in costs and finished
    ]
    if judge is None:
        verdict = (
            f"No point can be compared: no judge of {', '.join(config.judges)} gave every one a {TITLES[config.quality]}."
            if finished
            else "No point finished."
        )
        return Findings(None, [], values, {point: [] for point in values}, None, verdict, notes)
    objectives: list[str] = [config.quality, *costs]
    table = [[-found[config.quality], *(found[name] for name in costs)] for found in values.values()]
    numbers = list(values)
    dominated = {
        number: [numbers[index] for index in better]
        for number, better in zip(numbers, dominated_by(table), strict=True)
    }
    best = best_of(values, config)
    labels = {point.number: point.label for point in finished}
    findings = Findings(judge, objectives, values, dominated, best, "", notes)
    sentences = [*caveats(finished, judge), _front_sentence(findings), _best_sentence(findings, labels, config)]
    doubts = [*_uncertainty(finished, findings, config), *chosen_by_its_judge(finished, best)]
    return findings._replace(verdict=" ".join(sentences), notes=[*notes, *doubts])


def best_of(values: Mapping[int, Mapping[str, float]], config: SweepConfig) -> int | None:
    """Highest quality within the constraint; among equals the smaller KL, then the earlier point."""
    within = [number for number, found in values.items() if permitted(found, config)]
    return min(
        within,
        key=lambda number: (-values[number][config.quality], values[number].get("kl", 0.0), number),
        default=None,
    )


def permitted(found: Mapping[str, float], config: SweepConfig) -> bool:
    """Whether a point keeps the constraint; one without benchmarks cannot show that it does."""
    return "regression" in found and found["regression"] <= config.max_regression + ROUNDING


def shown(name: str, value: float) -> str:
    """A value with its unit: shares in percent, regressions in points, KL in nats."""
    if name == "win_rate":
        return f"{100 * value:.1f} %"
    if name == "regression":
        return f"{100 * value + 0.0:+.1f} points".replace("-", "\N{MINUS SIGN}")
    text = f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
    return f"{text} nats" if name == "kl" else text


def judge_title(judge: str) -> str:
    """``gold`` -> gold labeler."""
    return JUDGES[judge].title if judge in JUDGES else judge


def _front_sentence(findings: Findings) -> str:
    against = " and ".join(TITLES[name] for name in findings.objectives[1:])
    total, front = len(findings.dominated), len(findings.front)
    what = f"{TITLES[findings.objectives[0]]} ({judge_title(findings.judge or '')})" + (
        f" against {against}" if against else ""
    )
    return f"{front} of {total} points {'is' if front == 1 else 'are'} on the Pareto front of {what}."


def _best_sentence(findings: Findings, labels: Mapping[int, str], config: SweepConfig) -> str:
    against = BASELINES[config.regression_against]
    points = 100 * config.max_regression
    limit = f"a benchmark regression of at most {points:g} point{'' if points == 1 else 's'} against {against}"
    if findings.best is not None:
        best = findings.values[findings.best]
        figures = ", ".join(
            f"{TITLES[name]} {shown(name, best[name])}" for name in (config.quality, "kl", "regression") if name in best
        )
        return f"Best with {limit}: {labels[findings.best]} ({figures})."
    known = {number: found["regression"] for number, found in findings.values.items() if "regression" in found}
    if not known:
        return f"No best point is named: no benchmarks were measured, so {limit} cannot be shown."
    least = min(known, key=lambda number: known[number])
    return f"No point keeps {limit}; the least is {shown('regression', known[least])} at {labels[least]}."


def _uncertainty(finished: Sequence[SweptPoint], findings: Findings, config: SweepConfig) -> list[str]:
    """Which points this sweep cannot tell from the best."""
    if findings.best is None or config.quality != "win_rate":
        return []
    top = findings.values[findings.best]["win_rate"]
    close = [
        point.number
        for point in finished
        if point.number != findings.best
        and permitted(findings.values[point.number], config)
        and point.metrics.get(f"policy/win_rate_{findings.judge}_high", float("-inf")) >= top
    ]
    if not close:
        return []
    names = ", ".join(f"#{number}" for number in close)
    return [
        f"Within the constraint the interval of {names} reaches the best point's win rate; more test prompts or seeds are "
        "needed to tell them apart. Front and dominance follow the estimates."
    ]
