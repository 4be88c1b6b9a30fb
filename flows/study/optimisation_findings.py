"""Over-optimisation: gold and proxy score over the distance travelled, for PPO and for best-of-n."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flows.study.points import policy_setting
from flows.study.results import Chart, Results, StudyFinding, Trace
from flows.study.rules import Claim, PerSeed, TurningPoint, turn_of
from tasks.results.best_of_n import (
    Fit,
    fit_best_of_n,
    fit_rl,
    gold_of_best_of_n,
    gold_of_rl,
    peak_of_best_of_n,
    peak_of_rl,
)
from tasks.results.sheet import GOLD, REWARD_MODEL
from tasks.results.win_rate import Floats

DISTANCE = "square root of KL, sqrt(nats)"
GOLD_CURVE = "objective/score_gold"
NO_GOLD = (
    f"the PPO history holds no {GOLD_CURVE}: gold scores of the training responses are logged where the data has a gold "
    "labeler and PPO is told to ask it"
)


class Curve(NamedTuple):
    """One seed's way: PPO's iterations, or best-of-n over n."""

    distance: list[float]
    """Square root of the KL to the start; a negative estimate of the KL counts as 0."""
    gold: list[float]
    proxy: list[float]


def ppo_curve(history: Sequence[Mapping[str, float]]) -> Curve | None:
    """Gold and proxy score of the responses that PPO trained on; None when a row lacks one of them."""
    needed = ("objective/kl", "objective/score", GOLD_CURVE)
    if not history or any(name not in row for row in history for name in needed):
        return None
    return Curve(
        [math.sqrt(max(row["objective/kl"], 0.0)) for row in history],
        [row[GOLD_CURVE] for row in history],
        [row["objective/score"] for row in history],
    )


class Fitted(NamedTuple):
    """A published form, fitted to the gold score gained since the start."""

    fit: Fit
    explained: float
    """1 - squared error / variance of the gains; NaN when they do not vary."""
    form: Callable[[Floats, float, float], Floats]
    peak_of: Callable[[float, float], float]

    def drawn(self, start: float, first: float, last: float) -> tuple[list[float], list[float]]:
        """The curve between two distances, as gold score."""
        grid = np.linspace(first, last, 60)
        return grid.tolist(), (start + self.form(grid, *self.fit)).tolist()

    @property
    def peak(self) -> float | None:
        """Distance at which gold is highest; None when the fitted curve only rises."""
        alpha, beta = self.fit
        return self.peak_of(alpha, beta) if beta > 0 else None


class SeedFigure(NamedTuple):
    """One figure of every seed."""

    heading: str
    values: PerSeed
    digits: int = 2
    signed: bool = False


def fit_columns(fits: Mapping[int, Fitted]) -> list[SeedFigure]:
    """The fitted coefficients, how well they fit, and where they put the peak."""
    peaks = {seed: peak for seed, fit in fits.items() if (peak := fit.peak) is not None}
    return [
        SeedFigure("alpha", {seed: fit.fit.rise for seed, fit in fits.items()}, 3),
        SeedFigure("beta", {seed: fit.fit.decay for seed, fit in fits.items()}, 3),
        SeedFigure("fit explains, %", {seed: 100 * fit.explained for seed, fit in fits.items()}, 0),
        SeedFigure("gold peaks at sqrt(KL)", peaks),
    ]


def seed_table(results: Results, seeds: Iterable[int], columns: Sequence[SeedFigure]) -> list[list[str]]:
    """One row a seed, and one with mean and interval."""

    def value(column: SeedFigure, seed: int) -> str:
        style = f"{'+' if column.signed else ''}.{column.digits}f"
        return format(column.values[seed], style) if seed in column.values else "–"

    rows = [[str(seed), *(value(column, seed) for column in columns)] for seed in sorted(seeds)]
    means = [results.cell(column.values, 1.0, column.digits, column.signed) for column in columns]
    return [*rows, ["all seeds", *means]] if rows else []


def curve_traces(curve: Curve, fit: Fitted | None, form: str, start: float, *, first: bool) -> list[Trace]:
    """What one seed adds to a figure; only the ``first`` one names its lines. The fit begins at distance ``start``."""
    traces = [
        Trace("gold labeler" if first else "", curve.distance, curve.gold, "gold labeler"),
        Trace("reward model" if first else "", curve.distance, curve.proxy, "reward model"),
    ]
    if fit is not None:
        drawn = fit.drawn(curve.gold[0], start, max(curve.distance))
        traces.append(Trace(form if first else "", *drawn, "gold labeler", fitted=True))
    return traces


def fitted(distance: Sequence[float], gold: Sequence[float], from_kl: float, *, rl: bool) -> Fitted | None:
    """Fit one of the two forms to gold gained over the first point; None with fewer than two points beyond ``from_kl``."""
    points = [(d, value - gold[0]) for d, value in zip(distance, gold, strict=True) if d > 0 and d * d >= from_kl]
    if len({d for d, _ in points}) < 2:
        return None
    far, gain = np.array(points).T
    fit_of, form, peak_of = (
        (fit_rl, gold_of_rl, peak_of_rl) if rl else (fit_best_of_n, gold_of_best_of_n, peak_of_best_of_n)
    )
    fit = fit_of(far, gain)
    varies = float(np.sum((gain - gain.mean()) ** 2))
    error = float(np.sum((gain - form(far, *fit)) ** 2))
    return Fitted(fit, 1 - error / varies if varies else math.nan, form, peak_of)


def over_optimisation_ppo(results: Results) -> StudyFinding:
    """The run without a price of KL, or with the smallest one."""
    config, rules = results.config, results.config.rules
    setting = policy_setting(config.grid.overoptimised_beta, 0.0)
    records = results.records(setting)
    curves = {seed: curve for seed, record in records.items() if (curve := ppo_curve(record.history))}
    turns: dict[int, TurningPoint] = {}
    for seed, curve in curves.items():
        if len(curve.gold) >= 4 * rules.turn_window:
            turns[seed] = turn_of(curve.gold, curve.proxy, rules.turn_window)
    judged = results.judge(
        Claim("Gold score at the end minus at its turn", {s: turn.gold for s, turn in turns.items()}, "below", 0),
        Claim("Proxy score over the same stretch", {s: turn.proxy for s, turn in turns.items()}, "above", 0),
    )
    fits = {
        seed: fit
        for seed, curve in curves.items()
        if (fit := fitted(curve.distance, curve.gold, rules.fit_from_kl, rl=True)) is not None
    }
    traces: list[Trace] = []
    for seed, curve in sorted(curves.items()):
        start = math.sqrt(rules.fit_from_kl)
        traces += curve_traces(curve, fits.get(seed), "d (alpha - beta ln d)", start, first=not traces)
    columns = [
        SeedFigure("final KL", {seed: curve.distance[-1] ** 2 for seed, curve in curves.items()}, 1),
        SeedFigure("gold, first", {seed: curve.gold[0] for seed, curve in curves.items()}),
        SeedFigure("gold, last", {seed: curve.gold[-1] for seed, curve in curves.items()}),
        SeedFigure("proxy, first", {seed: curve.proxy[0] for seed, curve in curves.items()}, signed=True),
        SeedFigure("proxy, last", {seed: curve.proxy[-1] for seed, curve in curves.items()}, signed=True),
        SeedFigure("gold after its turn", {seed: turn.gold for seed, turn in turns.items()}, signed=True),
        SeedFigure("proxy there", {seed: turn.proxy for seed, turn in turns.items()}, signed=True),
        *fit_columns(fits),
    ]
    missing = results.missing([setting])
    missing += [f"seed {seed}: {NO_GOLD}" for seed in sorted(set(records) - set(curves))]
    short = sorted(set(curves) - set(turns))
    missing += [f"seed {seed}: {len(curves[seed].gold)} iterations are too few to look for a turn" for seed in short]
    return StudyFinding(
        key="over_optimisation_ppo",
        title="Over-optimisation by PPO",
        question="With nothing to hold the policy, does the reward model's score keep rising where gold turns?",
        paper="Yes; gold over d = sqrt(KL) follows d (alpha - beta ln d) (Gao et al. 2022).",
        judged=judged,
        headings=["seed", *(column.heading for column in columns)],
        rows=seed_table(results, curves, columns),
        panels=[
            Chart(f"PPO, beta = {config.grid.overoptimised_beta:g}, gamma = 0", DISTANCE, "mean score", traces=traces)
        ],
        missing=missing,
        notes=[
            "Each point is one iteration's training responses. The turn is found on odd iterations and what follows it is "
            "measured on even ones, so that noise alone makes no fall. The fit takes gold gained over the first iteration, "
            f"from a KL of {rules.fit_from_kl:g}."
        ],
    )


def over_optimisation_best_of_n(results: Results) -> StudyFinding:
    """SFT with the reward model's pick of n."""
    config = results.config
    setting = policy_setting(config.reference.beta, config.reference.gamma)
    records = results.records(setting)
    points = {
        seed: record.best_of_n
        for seed, record in records.items()
        if len(record.best_of_n) > 2 and all(GOLD in point for point in record.best_of_n)
    }
    curves = {
        seed: Curve(
            [math.sqrt(max(point["kl"], 0.0)) for point in curve],
            [point[GOLD] for point in curve],
            [point[REWARD_MODEL] for point in curve],
        )
        for seed, curve in points.items()
    }
    doublings = sorted({(int(curve[-2]["n"]), int(curve[-1]["n"])) for curve in points.values()})
    step = " and ".join(f"n = {after} minus n = {before}" for before, after in doublings) or "the last doubling"
    judged = results.judge(
        Claim(f"Gold score at {step}", {s: curve.gold[-1] - curve.gold[-2] for s, curve in curves.items()}, "below", 0),
        Claim(
            f"Proxy score at {step}", {s: curve.proxy[-1] - curve.proxy[-2] for s, curve in curves.items()}, "above", 0
        ),
    )
    fits = {
        seed: fit
        for seed, curve in curves.items()
        if (fit := fitted(curve.distance, curve.gold, 0.0, rl=False)) is not None
    }
    traces: list[Trace] = []
    for seed, curve in sorted(curves.items()):
        traces += curve_traces(curve, fits.get(seed), "d (alpha - beta d)", 0.0, first=not traces)
    sizes = sorted({int(point["n"]) for curve in points.values() for point in curve})
    columns = [
        SeedFigure(
            f"gold, n = {n}",
            {seed: point[GOLD] for seed, curve in points.items() for point in curve if int(point["n"]) == n},
        )
        for n in sizes
    ] + fit_columns(fits)
    return StudyFinding(
        key="over_optimisation_best_of_n",
        title="Over-optimisation by best-of-n",
        question="Does the reward model's pick of ever more candidates stop getting better by gold?",
        paper="Yes; gold over d = sqrt(KL) follows d (alpha - beta d) (Gao et al. 2022).",
        judged=judged,
        headings=["seed", *(column.heading for column in columns)],
        rows=seed_table(results, curves, columns),
        panels=[Chart("Best of n, SFT", DISTANCE, "mean score", traces=traces)],
        missing=results.missing([setting])
        + [
            f"seed {seed}: no best-of-n curve with gold scores and at least three n"
            for seed in sorted(set(records) - set(curves))
        ],
        notes=["By the unbiased estimator over all candidates; KL is log n - (n - 1) / n, an upper bound."],
    )
