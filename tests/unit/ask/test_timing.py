"""Estimates of time: the work of stages by hand, the order on so many workers, and rates that are measured once."""

import json
from pathlib import Path

import pytest

from flows.ask.arithmetic.counts import Counts, Rows
from flows.ask.arithmetic.shapes import network_config, shapes_of
from flows.ask.dry_run import dry_run
from flows.ask.timing import rates as measuring
from flows.ask.timing.page import show
from flows.ask.timing.rates import Rates, Trial, rates_here
from flows.ask.timing.schedule import planned
from flows.ask.timing.tokens import Lengths
from flows.ask.timing.work import Work, work_of
from flows.config import RLHFConfig, load
from flows.process import environment

RATES = Rates(
    machine="m",
    measured="today",
    gflops=1.0,
    parameters=100,
    tokens=10,
    read=0.001,
    train=0.003,
    rows=4,
    sample=0.01,
    update=1e-6,
)


def miniature(*overrides: str) -> RLHFConfig:
    return load(["scale=miniature", *overrides])


def test_work_is_counted_in_tokens() -> None:
    config = miniature(
        "sft.epochs=2",
        "sft.batch_size=10",
        "ppo.gamma=0",
        "ppo.advantage_estimator=leave_one_out",
        "ppo.responses_per_prompt=4",
        "ppo.episodes=64",
        "ppo.episodes_per_iteration=32",
        "ppo.minibatch_size=16",
        "independent_reward_model=none",
        "evaluation.gate.judge=reward_model",
    )
    rows = Counts(Rows(100, ""), Rows(30, ""), Rows(50, ""))
    lengths = Lengths(prompt=8.0, response=4.0, ranked=12.0, completions=3.0, asked=8.0)
    found = work_of(config, rows, lengths, shapes_of(config))
    assert found["sft"].trained == 2 * 100 * (8 + 4) and found["sft"].steps == 2 * 100 / 10
    assert found["comparisons"].sampled == 30 * 3 * 4 and found["comparisons"].read == 30 * 3 * 8
    ppo = found["ppo"]
    # No value model: the policy alone is trained; policy twice (while sampling only its prompts) and reference read.
    assert ppo.trained == 64 * 12 and ppo.sampled == 64 * 4
    judge = shapes_of(config).judge.scalar_parameters / shapes_of(config).policy.parameters
    assert ppo.read == pytest.approx(64 * 8 + 64 * 12 * (2 + judge))


def test_seconds_follow_tokens_steps_and_the_size() -> None:
    work = Work(read=1000, trained=200, sampled=50, steps=5, models=0)
    assert work.seconds(RATES, 100) == pytest.approx(1.0 + 0.6 + 0.5 + 5 * 100 * 1e-6 + 2.0)
    assert RATES.scaled(300).train == pytest.approx(0.009) and RATES.scaled(300).update == RATES.update


@pytest.mark.parametrize(("workers", "whole"), [(1, 13 + 10), (20, 8 + 10)])
def test_stages_wait_for_their_inputs_and_for_a_worker(workers: int, whole: float) -> None:
    """Of one second each, but pretraining of 11. Alone: 13 stages. On many workers the longest chain decides: data, base,
    SFT, comparisons, reward model, PPO, its evaluation, the report."""
    config = miniature(f"runtime.max_workers={workers}")
    stages = planned(config, {"pretrain": 11.0}, 1.0)
    assert len(stages) == 13
    ends = {stage.stage: stage.ends for stage in stages}
    assert ends["pretrain"] == 12.0 and ends["sft"] == 13.0
    assert max(ends.values()) == whole


def test_stages_about_something_have_a_time_of_their_own() -> None:
    stages = planned(miniature(), {"evaluation-": 5.0, "evaluation": 2.0}, 1.0)
    found = {stage.stage: stage.seconds for stage in stages}
    assert (found["evaluation-sft"], found["evaluation"], found["reward_model-independent"]) == (5.0, 2.0, 1.0)


def test_rates_are_measured_once_for_a_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = miniature()
    network, size = network_config(config), shapes_of(config).policy.parameters
    first = rates_here(network, size, config.runtime, Trial(6, 4, 2), tmp_path)
    assert first.parameters == size and first.train > first.read > 0 and first.sample > 0 and first.update > 0
    kept = json.loads((tmp_path / "rates.json").read_text())
    assert len(kept) == 1

    def refuse(*_: object) -> Rates:
        raise AssertionError("measured again")

    monkeypatch.setattr(measuring, "measure", refuse)
    assert rates_here(network, size, config.runtime, Trial(6, 4, 2), tmp_path) == first
    with pytest.raises(AssertionError, match="measured again"):
        rates_here(network, size, config.runtime, Trial(6, 4, 3), tmp_path)


def test_a_model_that_is_too_large_to_build_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load([])
    network, size = network_config(config), shapes_of(config).policy.parameters
    monkeypatch.setattr(measuring, "MOST_PARAMETERS", size // 2)
    found = rates_here(network, size, config.runtime, Trial(6, 4, 2), tmp_path)
    assert found.parameters < size and network.num_hidden_layers == 3


def test_a_dry_run_states_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "HOME", tmp_path)
    dry_run(miniature())
    shown = capsys.readouterr().out
    stages = [line.split()[0] for line in shown.partition("time on this machine")[2].splitlines() if line.strip()]
    assert stages[:8] == [
        "data_prep",
        "pretrain",
        "sft",
        "ppo_init",
        "comparisons",
        "reward_model",
        "ppo_ptx",
        "evaluation",
    ]
    for words in ("whole run", "GFLOP/s of a matrix product", "tokens a second", str(tmp_path / "rates.json")):
        assert words in shown
    dry_run(miniature("runtime=gpu"))
    assert "not estimated: runtime.device is cuda" in capsys.readouterr().out


def test_times_are_shown_in_a_unit_that_can_be_read() -> None:
    assert [show(seconds) for seconds in (1.4, 89, 90, 5399, 5400, 200_000)] == [
        "1 s",
        "89 s",
        "1.5 min",
        "90.0 min",
        "1.5 h",
        "2.3 days",
    ]
