"""Records of made-up sweeps."""

from collections.abc import Mapping
from functools import cache

from flows.config import load
from flows.run.summary import StageRecord
from flows.sweep.config import SweepConfig
from flows.sweep.record import State, SweepRecord, SweptPoint
from flows.sweep.timing import Span


@cache
def _shipped() -> SweepConfig:
    return load().sweep


def weighing(**changes: object) -> SweepConfig:
    return SweepConfig.model_validate(_shipped().model_dump() | changes)


def point(
    number: int,
    values: Mapping[str, str],
    win_rate: float = 0.5,
    kl: float = 1.0,
    regression: float | None = 0.0,
    state: State = "finished",
    error: str = "",
    **more: float,
) -> SweptPoint:
    metrics = {
        "policy/win_rate_gold": win_rate,
        "policy/win_rate_gold_low": win_rate - 0.03,
        "policy/win_rate_gold_high": win_rate + 0.03,
        "policy/win_rate_reward_model": 1 - win_rate,
        "policy/score_gold": 2 * win_rate,
        "policy/kl": kl,
    }
    if regression is not None:
        metrics["policy/benchmarks_vs_sft"] = -regression
        metrics["policy/benchmarks_vs_base"] = -regression - 0.05
    done = state == "finished"
    trunk = StageRecord(stage="sft", artifact="sft/aaa", ran=number == 0)
    own = StageRecord(stage="ppo_ptx", artifact=f"ppo_ptx/{number}", ran=True)
    spans = [Span("ppo_ptx", own.artifact, 1000.0 + 100 * number + 40, 1000.0 + 100 * number + 95)]
    if number == 0:
        spans.insert(0, Span("sft", trunk.artifact, 1000.0, 1038.0))
    return SweptPoint(
        number=number,
        values=dict(values),
        state=state,
        error=error,
        run_id=f"{number:032x}" if done else "",
        started=1000.0 + 100 * number if state != "waiting" else 0.0,
        ended=1100.0 + 100 * number if state != "waiting" else 0.0,
        metrics=metrics | more if done else {},
        stages=[trunk, own] if done else [],
        spans=spans if done else [],
    )


def sweep(*knobs: str, planned: int = 0, config: SweepConfig | None = None) -> SweepRecord:
    return SweepRecord(
        name=f"sweep of {' × '.join(knobs)}, 2026-01-01 00:00:00",
        command="python -m flows.rlhf -m " + " ".join(f"{knob}=1,2" for knob in knobs),
        run_id="0" * 32,
        experiment_id="1",
        tracking_uri="",
        process=1,
        started=1000.0,
        knobs=list(knobs),
        planned=[],
        expected=planned,
        weighing=config or weighing(),
    )


def grid() -> list[SweptPoint]:
    """Nine points; by hand: 4 is the best within a regression of 0.01, and 8 failed."""
    table = [  # beta, gamma, win rate, KL, regression
        ("0", "0", 0.66, 5.0, 0.080),
        ("0", "1", 0.65, 4.0, 0.030),
        ("0", "27.8", 0.60, 3.0, -0.005),
        ("0.02", "0", 0.64, 2.0, 0.060),
        ("0.02", "1", 0.64, 1.5, 0.010),
        ("0.02", "27.8", 0.58, 1.2, -0.010),
        ("0.2", "0", 0.55, 0.3, 0.020),
        ("0.2", "1", 0.54, 0.3, 0.020),
    ]
    points = [
        point(number, {"ppo.beta": beta, "ppo.gamma": gamma}, win, kl, loss)
        for number, (beta, gamma, win, kl, loss) in enumerate(table)
    ]
    failed = point(8, {"ppo.beta": "0.2", "ppo.gamma": "27.8"}, state="failed", error="step 3: <b>loss</b> is nan")
    return [*points, failed]
