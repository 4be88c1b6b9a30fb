"""Estimates of time: the work of stages by hand, the order on so many workers, and rates that are measured once."""

import json
from pathlib import Path

import pytest

from flows.ask.arithmetic.counts import Counts, Rows
from flows.ask.arithmetic.networks import network_config
from flows.ask.arithmetic.shapes import shapes_of
from flows.ask.doctor.patient import Patient
from flows.ask.dry_run import dry_run
from flows.ask.timing import measuring
from flows.ask.timing import page as timing_page
from flows.ask.timing.measuring import MeasuredModel, rates_here
from flows.ask.timing.page import ranks_of, show, stages_of, time_lines
from flows.ask.timing.rates import Rates, Trial, declared
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
    adapted_train=0.002,
    adapted_sample=0.02,
    update=1e-6,
)


LENGTHS = Lengths(prompt=8.0, response=4.0, ranked=12.0, completions=3.0, asked=8.0, written=4.0)
WORKS = {
    name: Work(read=1000.0 * seconds)
    for name, seconds in {
        "reward_model": 1,
        "ppo_ptx": 3,
        "rejection_sampling-samples": 5,
        "rejection_sampling": 7,
    }.items()
}


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
    found = work_of(config, rows, LENGTHS, shapes_of(config))
    assert found["sft"].trained == 2 * 100 * (8 + 4) and found["sft"].steps == 2 * 100 / 10
    assert found["comparisons"].sampled == 30 * 3 * 4 and found["comparisons"].read == 30 * 3 * 8
    ppo = found["ppo"]
    # No value model: the policy alone is trained; policy twice (while sampling only its prompts) and reference read.
    assert ppo.trained == 64 * 12 and ppo.sampled == 64 * 4
    judge = shapes_of(config).judge.scalar_parameters / shapes_of(config).policy.parameters
    assert ppo.read == pytest.approx(64 * 8 + 64 * 12 * (2 + judge))


def test_later_rounds_draw_what_is_selected_from_and_score_it_twice() -> None:
    asked = ("rounds=2", "comparisons.selection=adversarial", "comparisons.selected_from=16")
    rows = Counts(Rows(100, ""), Rows(30, ""), Rows(50, ""))
    shapes = shapes_of(miniature())
    found, plain = (work_of(miniature(*overrides), rows, LENGTHS, shapes) for overrides in (asked, asked[:1]))
    judge = shapes.judge.scalar_parameters / shapes.policy.parameters
    assert found["comparisons"] == plain["comparisons"] and found["comparisons-"] == Work()
    assert found["candidates-"].sampled == 30 * 16 * 4
    assert found["candidates-"].read == pytest.approx(30 * 16 * (8 + 2 * judge * 12))
    assert "candidates-" not in plain


def test_seconds_follow_tokens_steps_and_the_size() -> None:
    work = Work(read=1000, trained=200, sampled=50, steps=5, models=0)
    assert work.seconds(RATES, 100) == pytest.approx(1.0 + 0.6 + 0.5 + 5 * 100 * 1e-6 + 2.0)
    assert RATES.scaled(300).train == pytest.approx(0.009) and RATES.scaled(300).update == RATES.update


@pytest.mark.parametrize(("workers", "whole"), [(1, 13 + 10), (20, 8 + 10)])
def test_stages_wait_for_their_inputs_and_for_a_worker(workers: int, whole: float) -> None:
    """Of one second each, but pretraining of 11. Alone: 13 stages. On many workers the longest chain decides: data, base,
    SFT, comparisons, reward model, PPO, its evaluation, the report."""
    config = miniature(f"runtime.max_workers={workers}")
    stages = planned(config, lambda kind: 11.0 if kind.group == "pretrain" else 1.0)
    assert len(stages) == 13
    ends = {stage.stage: stage.ends for stage in stages}
    assert ends["pretrain"] == 12.0 and ends["sft"] == 13.0
    assert max(ends.values()) == whole


def test_what_a_policy_writes_is_counted_apart_from_the_data() -> None:
    config = miniature("ppo.episodes=64", "ppo.gamma=0", "rivals=[rejection_sampling]", "runtime.max_workers=1")
    rows, lengths = Counts(Rows(100, ""), Rows(30, ""), Rows(50, "")), LENGTHS._replace(written=24.0)
    usual, long = (work_of(config, rows, each, shapes_of(config)) for each in (LENGTHS, lengths))
    assert (usual["ppo"].sampled, long["ppo"].sampled) == (64 * 4, 64 * 24)
    assert long["comparisons"].sampled == 6 * usual["comparisons"].sampled
    assert long["evaluation-"].sampled == 6 * usual["evaluation-"].sampled
    assert long["reward_model"].trained == usual["reward_model"].trained * (8 + 24) / 12
    assert long["sft"] == usual["sft"]


def test_an_adapter_is_trained_at_its_own_rate_and_takes_small_steps() -> None:
    rows, shapes = Counts(Rows(100, ""), Rows(30, ""), Rows(50, "")), shapes_of(miniature())
    full, thin = (work_of(miniature(name), rows, LENGTHS, shapes) for name in ("adapter=none", "adapter=lora"))
    share = 16 * (4 * (32 + 32) + 3 * (32 + 64)) / shapes.policy.parameters  # rank x (in + out) of seven layers
    for stage in ("sft", "ppo_init"):
        assert thin[stage] == full[stage]._replace(steps=pytest.approx(full[stage].steps * share), adapted=True)
    assert thin["reward_model"].adapted and thin["ppo_ptx"].adapted and not thin["pretrain"].adapted
    assert thin["ppo_ptx"].steps < 0.7 * full["ppo_ptx"].steps
    work = Work(trained=200, sampled=50, models=0, adapted=True)
    assert work.seconds(RATES, 100) == pytest.approx(0.4 + 1.0 + 2.0)


def test_ranks_divide_tokens_and_take_time_to_start() -> None:
    work = Work(read=1000, trained=200, sampled=50, steps=5, models=0)
    assert work.seconds(RATES, 100, ranks=2) == pytest.approx((1.0 + 0.6 + 0.5) / 2 + 5 * 100 * 1e-6 + 2.0 + 6.0)


def test_a_card_that_is_not_here_is_as_fast_as_its_data_sheet() -> None:
    """By hand: 10 million parameters, 40 % of 1 TFLOP/s, 50 % of 100 GB/s."""
    runtime = miniature("runtime=gpu").runtime
    few, many = (declared(10_000_000, runtime, rows, 1.0, 100.0) for rows in (2, 1000))
    assert few.read == pytest.approx(2e7 / 0.4e12) and few.train == pytest.approx(3 * few.read)
    assert few.adapted_train == pytest.approx(2 * few.read)
    assert few.sample == pytest.approx(2 * 1e7 / 50e9 / 2)  # every weight is read for two tokens
    assert many.sample == pytest.approx(many.read)  # products take longer than reading
    assert few.update == pytest.approx(28 / 50e9)
    again = runtime.model_copy(update={"gradient_checkpointing": True, "precision": "fp32"})
    slow = declared(10_000_000, again, 2, 1.0, 100.0)
    assert slow.train == pytest.approx(4 * few.read) and slow.sample == pytest.approx(2 * few.sample)


def test_without_a_gpu_the_declared_card_is_taken_and_every_rank_has_one() -> None:
    config = load(["experiment=instructgpt_1_3b", "runtime.processes=8", "dry_run.card_tflops=100"])
    text = "\n".join(time_lines(config))
    for words in (
        "nothing measured, torch sees no GPU here: a card of 100 TFLOP/s and 2039 GB/s",
        "(64 rows side by side)",  # 512 episodes an iteration
        "half of what is allowed",
        "8 processes at work on one stage",
    ):
        assert words in text


@pytest.mark.parametrize(("asked", "cores", "found"), [(1, 8, 1), (4, 8, 4), (4, 2, 2), (4, 1, 1)])
def test_no_more_ranks_help_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, asked: int, cores: int, found: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert ranks_of(miniature(f"runtime.processes={asked}").runtime) == found


def test_every_stage_has_the_seconds_of_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """In round 2 a reward model learns from the rankings of both rounds; what ranks cannot divide takes as long with more."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    config = miniature("rounds=2", "rivals=[rejection_sampling]", "runtime.processes=2")
    patient, shapes = Patient(config), shapes_of(config)
    monkeypatch.setattr(timing_page, "work_of", lambda *_: WORKS)
    rates = RATES.model_copy(update={"parameters": shapes.policy.parameters, "update": 0.0})
    found = {stage.stage: stage.seconds for stage in stages_of(patient, shapes, LENGTHS, rates)}
    copies = 2 * 4e-9 * shapes.policy.parameters
    expected = {
        "reward_model": 1.0 / 2 + 8.0,
        "reward_model-round_2": 2.0 / 2 + 8.0,
        "reward_model-independent-round_2": 2.0 / 2 + 8.0,
        "ppo_ptx-round_2": 3.0 / 2 + 8.0,
        "rejection_sampling-samples": 5.0 + 2.0,
        "rejection_sampling": 7.0 / 2 + 8.0,
    }
    assert {name: found[name] for name in expected} == {
        name: pytest.approx(seconds + copies) for name, seconds in expected.items()
    }


def test_rates_are_measured_once_for_a_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = miniature()
    network, size = network_config(config), shapes_of(config).policy.parameters
    first = rates_here(MeasuredModel(network, size, None), config.runtime, Trial(6, 4, 2), tmp_path)
    assert first.parameters == size and first.train > first.read > 0 and first.sample > 0 and first.update > 0
    kept = json.loads((tmp_path / "rates.json").read_text())
    assert len(kept) == 1

    def refuse(*_: object) -> Rates:
        raise AssertionError("measured again")

    monkeypatch.setattr(measuring, "measure", refuse)
    assert rates_here(MeasuredModel(network, size, None), config.runtime, Trial(6, 4, 2), tmp_path) == first
    with pytest.raises(AssertionError, match="measured again"):
        rates_here(MeasuredModel(network, size, None), config.runtime, Trial(6, 4, 3), tmp_path)


def test_a_model_that_is_too_large_to_build_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load([])
    network, size = network_config(config), shapes_of(config).policy.parameters
    monkeypatch.setattr(measuring, "MOST_PARAMETERS", size // 2)
    found = rates_here(MeasuredModel(network, size, None), config.runtime, Trial(6, 4, 2), tmp_path)
    assert found.parameters < size and network.num_hidden_layers == 3


def test_a_dry_run_states_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "HOME", tmp_path)
    dry_run(miniature("ppo.episodes=64000"))
    shown = capsys.readouterr().out
    stages = [line.split()[0] for line in shown.partition("\ntime\n")[2].splitlines() if line.strip()]
    assert stages[:9] == [
        "expected",
        "data_prep",
        "pretrain",
        "sft",
        "ppo_init",
        "comparisons",
        "reward_model",
        "ppo_ptx",
        "evaluation",
    ]
    _, expected, _, at_most, _ = next(line for line in shown.splitlines() if "ppo_ptx  " in line).split()
    assert expected != at_most
    for words in (
        "whole run",
        "as long as the demonstrations'",
        "at most: 24, as a policy writes that never ends one",
        "GFLOP/s of a matrix product",
        "tokens a second",
        str(tmp_path / "rates.json"),
    ):
        assert words in shown


def test_times_are_shown_in_a_unit_that_can_be_read() -> None:
    assert [show(seconds) for seconds in (1.4, 89, 90, 5399, 5400, 200_000)] == [
        "1 s",
        "89 s",
        "1.5 min",
        "90.0 min",
        "1.5 h",
        "2.3 days",
    ]
