"""Which road is best at equal labels and samples, and at equal KL."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from flows.study.points import policy_setting, road_setting, rows_of_roads
from flows.study.policy_findings import GOLD, KL, PROXY, VS_BASE, WIN
from flows.study.results import Chart, Results, StudyFinding, series_of
from flows.study.rules import Claim, PerSeed, difference, seed_interval
from tasks.results.policies import POLICIES
from tasks.results.sheet import GOLD as GOLD_JUDGE

CONTROL = "random_control"
COSTS = ("cost/samples", "cost/tokens_learned", "cost/seconds")
HEADINGS = [
    "road", "gold score", "at equal samples", "above best of n at its KL", "at equal KL", "KL", "proxy score", "win %, gold",
    "benchmarks vs base, points", "responses drawn", "tokens learned from", "seconds",
]  # fmt: skip


def standing(of: Mapping[str, PerSeed], confidence: float, fewest_seeds: int) -> dict[str, str]:
    """Road -> best, level or behind, by the rule of docs/roads.md.

    The best has the highest mean over seeds. Another one is behind where the interval of its seed-by-seed difference to the best
    lies wholly below 0, and level with it else. With too few seeds in common nothing is said.
    """
    measured = {road: values for road, values in of.items() if len(values) >= fewest_seeds}
    if not measured:
        return {}
    best = max(measured, key=lambda road: math.fsum(measured[road].values()) / len(measured[road]))
    found = {best: "best"}
    for road in measured:
        apart = list(difference(measured[road], measured[best]).values())
        if road != best and len(apart) >= fewest_seeds:
            found[road] = "behind" if seed_interval(apart, confidence).high < 0 else "level"
    return found


def best_of_n_at(curve: Sequence[Mapping[str, float]], kl: float) -> float | None:
    """Gold score of best-of-n sampling at a KL, between its points a line in the square root of the KL; None beyond its end."""
    points = sorted((point["kl"], point[GOLD_JUDGE]) for point in curve if GOLD_JUDGE in point)
    if not points or kl > points[-1][0]:
        return None
    distances, scores = [math.sqrt(at) for at, _ in points], [score for _, score in points]
    return float(np.interp(math.sqrt(max(0.0, kl)), distances, scores))


def above_best_of_n(results: Results, setting: str) -> dict[int, float]:
    """Seed -> gold score less that of best-of-n sampling of the same start, by the same reward model, at the road's own KL."""
    found: dict[int, float] = {}
    for seed, record in results.records(setting).items():
        if {KL, GOLD} <= record.metrics.keys():
            level = best_of_n_at(record.best_of_n, record.metrics[KL])
            found |= {} if level is None else {seed: record.metrics[GOLD] - level}
    return found


def settings_of(results: Results) -> dict[str, str]:
    """Policy of the tables -> setting, PPO's two first."""
    reference = results.config.reference
    own = {
        "ppo_ptx": policy_setting(reference.beta, reference.gamma),
        "ppo": policy_setting(reference.beta, 0.0),
    }
    return own | {policy: road_setting(policy) for policy in rows_of_roads(results.config.grid.roads)}


def rival_roads(results: Results) -> StudyFinding:
    """PPO-ptx, PPO and their rivals, from one start."""
    settings, rules = settings_of(results), results.config.rules
    gold = {road: results.metric(setting, GOLD) for road, setting in settings.items()}
    above = {road: above_best_of_n(results, setting) for road, setting in settings.items()}
    compared = [road for road in settings if road != CONTROL]
    samples, kl = (
        standing({road: of[road] for road in compared}, rules.confidence, rules.fewest_seeds) for of in (gold, above)
    )
    rows = [
        [
            POLICIES[road].title,
            results.cell(gold[road], signed=False),
            samples.get(road, "–"),
            results.cell(above[road]),
            kl.get(road, "–"),
            results.cell(results.metric(setting, KL), signed=False),
            results.cell(results.metric(setting, PROXY)),
            results.cell(results.metric(setting, WIN), 100, 1, signed=False),
            results.cell(results.metric(setting, VS_BASE), 100, 1),
            *(_mean(results.metric(setting, name)) for name in COSTS),
        ]
        for road, setting in settings.items()
    ]
    return StudyFinding(
        key="rival_roads",
        title="Rival roads",
        question="Which road at equal labels, equal samples, equal KL?",
        paper="PPO beats DPO on the same rankings (Xu et al. 2024; Ivison et al. 2024), while DPO has the better reward at equal "
        "KL (Rafailov et al. 2023); RLOO is no worse than PPO (Ahmadian et al. 2024); PPO beats fine-tuning on the best of "
        "several samples (AlpacaFarm, Dubois et al. 2023).",
        judged=results.judge(*_claims(gold, above, rules.gold_cost)),
        headings=HEADINGS,
        rows=rows,
        panels=[_panel(results, settings)],
        missing=results.missing(list(settings.values())),
        notes=[_answer("samples", samples), _answer("KL", kl), *_notes(results, settings)],
    )


def _claims(gold: Mapping[str, PerSeed], above: Mapping[str, PerSeed], cost: float) -> list[Claim]:
    """What was published about the roads that there are."""

    def claim(text: str, first: str, second: str, of: Mapping[str, PerSeed], threshold: float = 0.0) -> Claim:
        return Claim(text, difference(of[first], of[second]), "above", threshold)

    found = []
    if "dpo" in gold:
        found.append(claim("Gold score of PPO minus DPO, on the same rankings", "ppo", "dpo", gold))
        found.append(claim("Above best of n at its own KL, DPO minus PPO", "dpo", "ppo", above))
    if "rloo" in gold:
        found.append(claim("Gold score of RLOO minus PPO, as many samples", "rloo", "ppo", gold, -cost))
    if "rejection_sampling" in gold:
        text = "Gold score of PPO minus rejection sampling, as many samples"
        found.append(claim(text, "ppo", "rejection_sampling", gold))
        text = "Gold score of rejection sampling minus its control"
        found.append(claim(text, "rejection_sampling", CONTROL, gold))
    if "grpo" in gold and not found:
        found.append(claim("Gold score of GRPO minus PPO, as many samples", "grpo", "ppo", gold, -cost))
    return found


def _answer(equal: str, found: Mapping[str, str]) -> str:
    """The question answered in one sentence."""
    if not found:
        return f"At equal {equal}: not measured with enough seeds."
    names = {
        word: ", ".join(POLICIES[road].title for road, place in found.items() if place == word)
        for word in ("best", "level", "behind")
    }
    level = f"; level with it {names['level']}" if names["level"] else ""
    behind = f"; behind it {names['behind']}" if names["behind"] else ""
    return f"At equal {equal}: best is {names['best']}{level}{behind}."


def _notes(results: Results, settings: Mapping[str, str]) -> list[str]:
    beyond = [
        POLICIES[road].title
        for road, setting in settings.items()
        if len(above_best_of_n(results, setting)) < len(results.metric(setting, KL))
    ]
    rule = (
        "Best is the highest mean over seeds; another road is behind where the interval of its seed-by-seed difference to it "
        "lies wholly below 0, else level. The best is chosen after the fact, which favours it. The control takes no part."
    )
    equal = (
        "Equal labels: all roads learn from the same rankings, or from the reward model made of them. Equal samples: the roads "
        "that draw responses draw as many, and DPO none but those that were ranked. Equal KL: each road's gold score less that "
        "of best-of-n sampling of the start at the road's own KL; best of n's KL is the bound log n - (n - 1) / n."
    )
    end = (
        [f"Beyond the last point of best of n in some seed, and left out there: {', '.join(beyond)}."] if beyond else []
    )
    return [equal, rule, *end]


def _mean(values: PerSeed) -> str:
    return f"{math.fsum(values.values()) / len(values):,.0f}" if values else "–"


def _panel(results: Results, settings: Mapping[str, str]) -> Chart:
    """Gold score over KL, a point for each road and a line for best of n."""
    series = []
    for road, setting in settings.items():
        gold, kl = results.metric(setting, GOLD), results.metric(setting, KL)
        at = [math.fsum(kl.values()) / len(kl)] if kl else []
        series.append(series_of(POLICIES[road].title, at, [gold] if at else []))
    curves = {seed: record.best_of_n for seed, record in results.records(settings["ppo_ptx"]).items()}
    first = next(iter(curves.values()), [])
    points = [
        {seed: curve[place][GOLD_JUDGE] for seed, curve in curves.items() if len(curve) == len(first)}
        for place in range(len(first))
    ]
    series.append(series_of("best of n", [point["kl"] for point in first], points))
    return Chart("Gold score over KL", "KL to the start, nats", "mean score by gold", series)
