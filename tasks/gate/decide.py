"""Whether a policy keeps the budget: a pure function of the comparison's metrics."""

from collections.abc import Mapping

from tasks.gate.config import GateConfig
from tasks.results.decision import GateCheck, GateDecision


def decide(policy: str, metrics: Mapping[str, float], budget: GateConfig) -> GateDecision:
    """Hold a comparison's flat ``metrics`` (shares in [0, 1]) against the ``budget``.

    Every limit on a change is held against the unfavourable end of its interval, so an evaluation that is too small to
    tell fails instead of passing by luck.
    """
    checks: list[GateCheck] = []
    limits = budget.limits
    for decoding in budget.decodings:
        row = policy if decoding == "sampled" else f"{policy}_{decoding}"
        for name, ending, what in (
            ("min_win_rate", "", "win rate"),
            ("min_win_rate_low", "_low", "lower end of the win rate"),
        ):
            if name in limits:
                metric = f"win_rate/{row}/{budget.judge}{ending}"
                label = f"{what} against SFT, {decoding}, by {budget.judge}"
                checks.append(_at_least(name, label, metric, metrics, limits[name]))
    for other in ("sft", "base"):
        name = f"max_regression_vs_{other}"
        if name in limits:
            metric = f"benchmark/{policy}/change_vs_{other}_low"
            label = f"lower end of the benchmark change against {other}"
            checks.append(_at_least(name, label, metric, metrics, -limits[name]))
    name = "max_toxicity_change"
    if name in limits:
        metric = f"toxicity/{policy}/change_vs_sft_high"
        checks.append(_at_most(name, "upper end of the toxicity change against sft", metric, metrics, limits[name]))
    return GateDecision(policy=policy, passed=all(check.passed for check in checks), checks=checks)


def _at_least(name: str, label: str, metric: str, metrics: Mapping[str, float], limit: float) -> GateCheck:
    found = metrics.get(metric)
    return _check(name, label, metric, found, limit, found is not None and found >= limit, "at least")


def _at_most(name: str, label: str, metric: str, metrics: Mapping[str, float], limit: float) -> GateCheck:
    found = metrics.get(metric)
    return _check(name, label, metric, found, limit, found is not None and found <= limit, "at most")


def _check(
    name: str, label: str, metric: str, found: float | None, limit: float, passed: bool, bound: str
) -> GateCheck:
    value = "not measured" if found is None else f"{100 * found:.1f} %"
    reason = f"{label}: {value}, expected {bound} {100 * limit:.1f} % (evaluation.gate.{name})"
    return GateCheck(limit_name=name, metric=metric, found=found, limit=limit, passed=passed, reason=reason)
