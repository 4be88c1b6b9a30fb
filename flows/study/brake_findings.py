"""What PPO's brake keeps of an over-optimised run's best gold score, and how often it disturbs a healthy one."""

from collections.abc import Mapping

from flows.study.points import BEST_OF_BRAKED, UNBRAKED, braked_setting, healthy_setting, policy_setting
from flows.study.policy_findings import GOLD, INTERVENTIONS, KL
from flows.study.results import Results, StudyFinding
from flows.study.rules import Claim, Judged, PerSeed, seed_interval

KEPT = 0.95
"""Of the best gold score, what an over-optimised run's shipped policy should still have."""
DISTURBED = 1
"""Healthy runs that the brake may disturb."""
LOST = 0.01
"""Of the gold score, what healthy runs may lose."""


def share_of(values: PerSeed, whole: PerSeed) -> dict[int, float]:
    """Seed by seed; a seed whose whole is not above 0 has no share."""
    return {seed: values[seed] / whole[seed] for seed in values if whole.get(seed, 0.0) > 0}


def disturbed(results: Results, action: str, healthy: PerSeed) -> Judged:
    """A count has no interval: the claim holds where no more than ``DISTURBED`` runs were disturbed."""
    touched = {seed: float(times > 0) for seed, times in healthy.items()}
    text = f"Healthy runs that brake={action} disturbed, of {len(touched)}"
    claim = Claim(text, touched, "below", (DISTURBED + 1) / max(1, len(touched)), float(len(touched)), "runs", 0)
    rules = results.config.rules
    if len(touched) < rules.fewest_seeds:
        return Judged(claim, None, "not measured")
    interval = seed_interval(list(touched.values()), rules.confidence)
    return Judged(claim, interval, "holds" if sum(touched.values()) <= DISTURBED else "contradicted")


def brake(results: Results) -> StudyFinding:
    """Over-optimised runs with and without the brake, and healthy ones."""
    grid, reference = results.config.grid, results.config.reference
    best, unbraked = (results.metric(setting, GOLD) for setting in (BEST_OF_BRAKED, UNBRAKED))
    off = policy_setting(reference.beta, reference.gamma)
    without = results.metric(off, GOLD)
    spoilt = Claim(
        "Without a brake, share of the best gold score that is left",
        share_of(unbraked, best),
        "below",
        KEPT,
        100,
        "%",
        1,
    )
    judged = results.judge(spoilt)
    rows = [
        _row(results, "over-optimised, best by gold", BEST_OF_BRAKED, best, {}),
        _row(results, "over-optimised, no brake", UNBRAKED, best, {}),
    ]
    healthy = [_row(results, "healthy, no brake", off, without, {})]
    for action in grid.brakes:
        far, near = braked_setting(action), healthy_setting(action)
        kept, left = (share_of(results.metric(at, GOLD), of) for at, of in ((far, best), (near, without)))
        text = f"With brake={action}, share of the best gold score that is left"
        change = {seed: share - 1 for seed, share in left.items()}
        loss = f"Gold score of healthy runs, change with brake={action}"
        judged += results.judge(
            Claim(text, kept, "above", KEPT, 100, "%", 1), Claim(loss, change, "above", -LOST, 100, "%", 1)
        )
        judged.append(disturbed(results, action, results.metric(near, INTERVENTIONS)))
        rows.append(_row(results, f"over-optimised, {action}", far, best, results.metric(far, INTERVENTIONS)))
        healthy.append(_row(results, f"healthy, {action}", near, without, results.metric(near, INTERVENTIONS)))
    settings = [BEST_OF_BRAKED, UNBRAKED, off, *map(braked_setting, grid.brakes), *map(healthy_setting, grid.brakes)]
    return StudyFinding(
        key="brake",
        title="The brake",
        question="How much of its best gold score does an over-optimised policy keep with PPO's brake, and does the brake "
        "leave healthy runs alone?",
        paper="Gold falls while the reward model's score rises (Gao et al. 2022). That a brake which never sees gold keeps "
        f"{KEPT:.0%} of the best gold score and disturbs at most {DISTURBED} healthy run, at a loss of {LOST:.0%}, is ours.",
        judged=judged,
        headings=["run", "gold score", "share of the best, %", "lowest seed, %", "KL", "runs disturbed"],
        rows=[*rows, *healthy],
        panels=[],
        missing=results.missing(settings),
        notes=[
            f"Over-optimised: beta {grid.braked_beta:g}, gamma 0, {grid.braked_episodes:,} episodes, the first "
            f"{grid.braked_seeds} seeds. Its best gold score is that of the same run with ppo.selection=gold, which ships the "
            "iteration that gold liked best: measured on the same test prompts as the others. Of healthy runs the share is that "
            "of the same seed without a brake. A run is disturbed if the brake held once or more.",
        ],
    )


def _row(results: Results, name: str, setting: str, whole: PerSeed, held: Mapping[int, float]) -> list[str]:
    gold = results.metric(setting, GOLD)
    share = share_of(gold, whole)
    return [
        name,
        results.cell(gold, signed=False),
        results.cell(share, 100, 1, signed=False),
        f"{100 * min(share.values()):.1f}" if share else "–",
        results.cell(results.metric(setting, KL), signed=False),
        f"{sum(times > 0 for times in held.values())} of {len(held)}" if held else "–",
    ]
