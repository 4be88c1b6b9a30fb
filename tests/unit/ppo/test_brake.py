"""The brake: when it holds, what it does, and that nothing changes where it is off."""

import io
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from flows.config import load
from tasks.engine.errors import ConfigError
from tasks.ppo.brake import Kept, held, keep_best, noise, overspent, worths
from tasks.ppo.config import PPOConfig
from tasks.ppo.sentinel import Row, window_means
from tasks.ppo.watch import WatchedLearner
from tests.unit.ppo import tiny
from tests.unit.ppo.test_sentinel import recorded
from tests.unit.ppo.test_watch import Scripted, equal, live, mean_of_scored, near, run, sentinel, weights

WINDOW = 5


def history(scores: Sequence[float], kl: Sequence[float], spread: float = 1.0, **others: Sequence[float]) -> list[Row]:
    return [
        {
            "step": float(step),
            "objective/score_independent": score,
            "objective/score_independent_std": spread,
            "objective/kl": nats,
            "policy/entropy": 1.0,
            "response/length": 10.0,
        }
        | {name.replace("__", "/"): values[step - 1] for name, values in others.items()}
        for step, (score, nats) in enumerate(zip(scores, kl, strict=True), start=1)
    ]


SANDBOX = load([]).ppo


def told(kind: str, seed: str) -> list[Row]:
    return [row | {"step": float(step)} for step, row in enumerate(recorded(kind, seed), start=1)]


def knobs(**changes: Any) -> PPOConfig:
    return tiny.config(**({"episodes": 16 * 60, "brake": "warn", "sentinel": sentinel(window=WINDOW)} | changes))


def first_hold(rows: list[Row], config: PPOConfig) -> int | None:
    return next((end for end in range(1, len(rows) + 1) if held(rows[:end], config, 0)), None)


def test_the_worth_by_hand() -> None:
    rows = history([2.0, 4.0, 6.0], [0.0, 1.0, 5.0], spread=2.0)
    # windows of two: scores 3 and 5 over a spread of 2, KL 0.5 and 3
    assert worths(rows, 2, 0.5) == pytest.approx([1.5 - 0.25, 2.5 - 1.5])
    assert worths(history([0.0] * 2, [-1.0] * 2), 2, 0.5) == [0.5]  # an estimate below 0 averages out with others
    assert worths(rows, 4, 0.5) == []


def test_a_judge_that_tells_nothing_apart_repays_no_kl() -> None:
    rows = history([3.0] * 20, [0.1 * step for step in range(20)], spread=0.0)
    assert worths(rows[:3], 2, 0.5) == pytest.approx([-0.025, -0.075])
    assert noise(rows, knobs()) == 0.0
    found = held(rows, knobs(brake_price=0.5, brake_fall=0.5), 0)
    assert found is not None and found.rule == "worth" and found.found == pytest.approx(0.5 * 1.5)


def test_the_sentence_names_the_kl_that_was_judged() -> None:
    rows = history([5.0] * 12, [float(step) for step in range(12)])
    between = [{**rows[-1], "step": 13.0, "objective/kl": 99.0}]
    del between[0]["objective/score_independent"]
    found = overspent([*rows, *between], WINDOW, 0.5, 0.5)
    assert found is not None and "at a KL of 9.0 nats" in found.reason  # 7 to 11


def test_kl_that_is_not_repaid_holds_the_brake_although_the_judge_is_still_pleased() -> None:
    rows = history([0.1 * step for step in range(20)], [0.0] * 10 + [1.0 * step for step in range(10)])
    assert overspent(rows, WINDOW, 0.05, 0.2) is None  # a nat costs 0.05 and brings 0.1
    found = overspent(rows, WINDOW, 0.3, 0.2)
    assert found is not None and found.rule == "worth"
    # the best window is the first with a nat in it: score 0.9 and KL 0.2; the last has 1.7 and 7
    assert found.found == pytest.approx((0.9 - 0.3 * 0.2) - (1.7 - 0.3 * 7.0))


def test_scores_that_fall_at_a_constant_kl_hold_it_too_and_noise_does_not() -> None:
    draws = random.Random(1)
    noisy = [1.0 + draws.gauss(0.0, 1.0) / math.sqrt(256) for _ in range(60)]
    assert first_hold(history(noisy, [0.8] * 60), knobs(brake_fall=0.2)) is None
    falling = [score - max(0, step - 30) * 0.05 for step, score in enumerate(noisy)]
    assert first_hold(history(falling, [0.8] * 60), knobs(brake_fall=0.2)) in range(36, 44)


@pytest.mark.parametrize("seed", range(20))
def test_on_curves_of_gao_et_al_a_higher_price_never_holds_later(seed: int) -> None:
    """Gold d (a - b ln d), a judge that shares most of the error, at the root d of a KL that grows."""
    draws = random.Random(seed)
    a, b, shared = draws.uniform(1.0, 2.0), draws.uniform(0.3, 0.8), draws.uniform(0.0, 0.5)
    kl = [(0.05 * step) ** 2 for step in range(60)]
    scores = [math.sqrt(nats) * (a - shared * b * math.log(max(nats, 1e-9)) / 2) for nats in kl]
    holds = [first_hold(history(scores, kl), knobs(brake_price=price)) or 999 for price in (0.0, 0.2, 0.4, 0.8)]
    assert holds == sorted(holds, reverse=True)


def test_gold_is_never_read() -> None:
    rows = told("exploited", "1")
    without = [{name: value for name, value in row.items() if "gold" not in name} for row in rows]
    liar = [row | {"objective/score_gold": -99.0 * row["step"]} for row in rows]
    config = knobs(brake_price=0.2)
    holds = [first_hold(given, config) for given in (rows, without, liar)]
    assert holds[0] is not None and len(set(holds)) == 1


@pytest.mark.parametrize(("seed", "first", "last"), [("1", 20, 30), ("2", 26, 36), ("3", 34, 44)])
def test_recorded_runs_that_were_exploited_are_stopped_with_nearly_their_best_gold(
    seed: str, first: int, last: int
) -> None:
    rows = told("exploited", seed)
    gold = window_means(rows, "objective/score_gold", WINDOW)
    stopped = first_hold(rows, knobs(brake_price=0.2, brake_fall=0.2))
    assert stopped is not None and first <= stopped <= last
    worth = worths(rows[:stopped], WINDOW, 0.2)
    assert gold[worth.index(max(worth))] >= 0.95 * max(gold) > 1.3 * gold[-1]  # what it ships; the peak; the run's end


@pytest.mark.parametrize(("price", "fall"), [(0.2, 0.2), (SANDBOX.brake_price, SANDBOX.brake_fall)])
@pytest.mark.parametrize("seed", ["1", "2", "3", "4", "5"])
def test_recorded_healthy_runs_are_left_alone(seed: str, price: float, fall: float) -> None:
    assert first_hold(told("healthy", seed), knobs(brake_price=price, brake_fall=fall)) is None


def test_the_embedded_worlds_own_limits_keep_most_gold_of_recorded_runs() -> None:
    shares = []
    for rows in (told("exploited", seed) for seed in "123"):
        gold = window_means(rows, "objective/score_gold", WINDOW)
        stopped = first_hold(rows, knobs(brake_price=SANDBOX.brake_price, brake_fall=SANDBOX.brake_fall))
        worth = worths(rows[:stopped], WINDOW, SANDBOX.brake_price)
        shares.append(gold[worth.index(max(worth))] / max(gold))
    assert min(shares) > 0.85 and sum(shares) / 3 > 0.93


def test_entropy_and_length_hold_it_by_the_sentinels_limits() -> None:
    calm = ([1.0] * 20, [0.5] * 20)
    for name, curve in (("policy__entropy", 0.1), ("response__length", 25.0)):
        changed = history(*calm, **{name: [1.0 if "entropy" in name else 10.0] * 10 + [curve] * 10})
        found = held(changed, knobs(), 0)
        assert found is not None and found.rule == ("entropy_collapse" if "entropy" in name else "length_drift")
        limits = sentinel(window=WINDOW) | {"entropy_left": None, "length_factor": None}
        assert held(changed, knobs(sentinel=limits), 0) is None


def test_after_an_intervention_a_whole_window_passes() -> None:
    rows = history([1.0] * 10 + [-9.0] * 10, [0.0] * 20)
    config = knobs()
    assert held(rows[:15], config, 0) and not held(rows[:15], config, 11)
    assert not held(rows[:15], config, 11) and held(rows[:16], config, 11)


def test_nothing_is_found_before_two_whole_windows_and_a_fall_of_the_limit_is_one() -> None:
    rows = history([1.0] * WINDOW + [0.5] * WINDOW, [0.25] * WINDOW + [2.0] * WINDOW)
    assert overspent(rows[:-1], WINDOW, 0.0, 0.1) is None
    found = overspent(rows, WINDOW, 0.0, 0.5)
    assert found is not None and found.found == 0.5 and "at a KL of 2.0 nats" in found.reason
    assert overspent(rows, WINDOW, 0.0, 0.501) is None


def test_iterations_that_nobody_scored_are_none() -> None:
    scored = history([1.0] * WINDOW + [-9.0] * WINDOW, [0.5] * WINDOW + [1.0] * WINDOW)
    gaps = [row | {"step": 2 * row["step"] - 1} for row in scored]
    between = [
        {"step": row["step"] + 1, "objective/kl": 7.0, "policy/entropy": 1.0, "response/length": 10.0} for row in gaps
    ]
    rows = [row for pair in zip(gaps, between, strict=True) for row in pair]
    config = knobs(brake="stop")
    assert worths(rows, WINDOW, 0.5) == worths(scored, WINDOW, 0.5)
    assert noise(rows, config) == noise(scored, config)
    assert held(rows[:-1], config, 0) and held(rows, config, 0) is None
    kept = keep_best(rows[: 2 * WINDOW - 1], config, None, None)
    assert kept is not None and kept.iteration == 2 * WINDOW - 1
    assert keep_best(rows[: 2 * WINDOW], config, kept, None) is kept


def test_of_windows_that_differ_by_less_than_their_noise_the_latest_is_kept() -> None:
    config = knobs(brake="stop", brake_price=0.5)
    # five scorings of sixteen responses, whose spread is twice that of the start: 2 / sqrt(80) = 0.2236
    spreads = [1.0] * WINDOW + [2.0] * 20
    assert noise(history([0.0] * 25, [0.0] * 25, objective__score_independent_std=spreads), config) == pytest.approx(
        0.2236, abs=1e-4
    )

    def kept_of(worth: Sequence[float]) -> list[int]:
        kept, found = None, []
        for end in range(WINDOW, len(worth) + 1):
            rows = history([1.0 + value for value in worth[:end]], [2.0] * end)
            kept = keep_best(rows, config, kept, None)
            found.append(0 if kept is None else kept.iteration)
        return found

    assert kept_of([0.0] * 5 + [1.0] * 5) == [5, 6, 7, 8, 9, 10]
    # the mean of a window of five falls by 0.05, 0.1, 0.15 ...; the standard error is 1 / sqrt(80) = 0.1118
    assert kept_of([1.0] * 5 + [0.75] * 4) == [5, 6, 7, 7, 7]
    assert kept_of([1.0] * 5 + [0.75] * 2 + [1.25] * 3) == [5, 6, 7, 8, 9, 10]


SCRIPT = [0.0, 0.0, 9.0, 9.0, 8.0, -9.0, -9.0, -9.0, -9.0, -9.0, -9.0, -9.0]
"""Over windows of two the best is reached in iteration 4, and left by far in iteration 6."""


def braked(action: str, script: Sequence[float] = SCRIPT, iterations: int = 12, **changes: Any) -> WatchedLearner:
    limits = sentinel(entropy_left=None, length_factor=None)
    learner = tiny.learner(episodes=16 * iterations, brake=action, brake_price=0.1, sentinel=limits, **changes)
    return WatchedLearner(learner, [Scripted(script)])


def test_off_and_warn_change_nothing() -> None:
    off, warn = braked("off"), braked("warn")
    rows, warned = run(off), run(warn)
    assert equal(weights(off.final_policy()), weights(warn.final_policy()))
    assert [{name: row[name] for name in rows[0]} for row in warned] == rows
    assert not off.report().interventions and not any("brake/interventions" in row for row in rows)
    assert [item.iteration for item in warn.report().interventions] == [6, 8, 10, 12]
    assert warned[-1]["brake/interventions"] == 4.0 and warn.report().selection == "last"


def test_beta_is_raised_every_time_it_holds_and_the_last_weights_are_shipped() -> None:
    learner = braked("beta", brake_factor=3.0)
    start = learner.learner.beta
    rows = run(learner)
    assert learner.learner.beta == pytest.approx(start * 3.0**4)
    told = [item.told.rpartition("; ")[2] for item in learner.report().interventions]
    assert told == [f"beta is {start * 3.0**n:g} from here" for n in (1, 2, 3, 4)]
    assert rows[5]["kl/beta"] == start and rows[6]["kl/beta"] == pytest.approx(3 * start)
    assert equal(weights(learner.final_policy()), weights(learner.learner.final_policy()))
    assert learner.report().selected_iteration == 12


def test_rollback_returns_to_the_best_weights_with_a_fresh_optimizer_and_a_higher_beta() -> None:
    learner = braked("rollback")
    scored = []
    for _ in range(6):
        scored.append(live(learner))
        learner.step()
    best = mean_of_scored(scored[:4], 2)
    (act,) = learner.report().interventions
    assert (act.iteration, act.best_iteration, act.beta) == (6, 4, pytest.approx(2 * learner.config.beta))
    assert act.told.endswith(f"; back to the weights of iteration 4, and beta is {act.beta:g} from here")
    assert near(weights(learner.learner.networks.policy), best)
    assert near(dict(learner.learner.ema.average), best) and not near(best, mean_of_scored(scored[:5], 2))
    assert not learner.learner.optimizers.policy.optimizer.state and learner.learner.optimizers.value.optimizer.state
    run(learner)
    assert near(weights(learner.final_policy()), best)
    assert learner.report().selection == "independent" and learner.report().selected_iteration == 4


def test_after_a_rollback_the_steps_of_an_optimizer_that_counts_them_begin_anew() -> None:
    adam = tiny.settings()["policy_adam"] | {"epsilon_placement": "before_correction"}
    learner = braked("rollback", policy_adam=adam)
    groups = learner.learner.optimizers.policy.optimizer.param_groups
    for _ in range(5):
        learner.step()
    assert all(group["steps"] == 10 for group in groups)
    learner.step()
    assert learner.report().interventions and all(group["steps"] == 0 for group in groups)


def test_stop_ends_the_run_and_ships_the_best_weights() -> None:
    learner = braked("stop")
    scored = []
    while learner.completed_steps < learner.total_steps:
        scored.append(live(learner))
        learner.step()
    report = learner.report()
    assert (report.iterations, report.planned_iterations, report.stopped_early) == (6, 12, True)
    assert near(weights(learner.final_policy()), mean_of_scored(scored[:4], 2))


def test_a_run_that_never_holds_ships_its_last_weights() -> None:
    calm, off = braked("stop", [1.0] * 4, iterations=4), braked("off", [1.0] * 4, iterations=4)
    run(calm), run(off)
    assert equal(weights(calm.final_policy()), weights(off.final_policy()))
    assert calm.report().selection == "last" and calm.report().selected_iteration == 4


@pytest.mark.parametrize("action", ["beta", "rollback", "stop"])
@pytest.mark.parametrize("killed_after", [3, 4, 6, 7])
def test_a_resumed_run_is_the_whole_run(action: str, killed_after: int) -> None:
    whole = braked(action)
    run(whole)
    first = braked(action)
    for _ in range(min(killed_after, 6 if action == "stop" else 99)):
        first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = braked(action, SCRIPT[first.completed_steps :])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    run(resumed)
    assert resumed.report() == whole.report() and resumed.history == whole.history
    assert equal(weights(resumed.final_policy()), weights(whole.final_policy()))
    assert isinstance(resumed._kept, Kept) and resumed.learner.beta == whole.learner.beta


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["ppo.brake=stop", "independent_reward_model=none"], "independent_reward_model is none"),
        (["ppo.brake=stop", "ppo.sentinel.every=0"], "sentinel.every is 0"),
        (["ppo.brake=beta", "ppo.kl_controller=adaptive"], "kl_controller is adaptive"),
        (["ppo.brake=beta", "ppo.beta=0"], "beta is 0 and brake is beta, which multiplies beta"),
        (["ppo.brake=rollback", "ppo.beta=0"], "beta is 0 and brake is rollback"),
        (["ppo.brake=rollback", "ppo.selection=independent"], "both choose the weights"),
        (["ppo.brake=stop", "evaluation.gate.judge=independent"], r"the judge of ppo\.brake=stop"),
        (["ppo.brake=hard"], r"ppo\.brake"),
    ],
)
def test_what_does_not_go_together_is_refused(asked: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(asked)


def test_every_word_is_taken_as_it_stands() -> None:
    assert [load([f"ppo.brake={word}"]).ppo.brake for word in ("off", "warn", "beta", "rollback", "stop")] == [
        "off",
        "warn",
        "beta",
        "rollback",
        "stop",
    ]
