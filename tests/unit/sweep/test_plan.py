"""What a sweep checks before anything starts, and the flags that only ask."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from flows.ask import flags
from flows.config import CONF, load
from flows.sweep import session
from flows.sweep.callback import SweepCallback
from flows.sweep.plan import GRID, OPTUNA, SweepPlan, read_plan
from flows.sweep.plugins import require_plugins
from flows.sweep.record import waiting
from tasks.engine.errors import ConfigError, PlumblineError
from tests.unit.sweep.points import weighing


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


def plan(tmp_path: Path, *overrides: str, **sweeper: Any) -> SweepPlan:
    sweeper = {"_target_": GRID, "params": None} | sweeper
    task = [f"tracking.root={tmp_path}", *overrides]
    values = {"hydra": {"sweeper": sweeper, "overrides": {"task": task}, "sweep": {"dir": str(tmp_path / "sweep")}}}
    return read_plan(OmegaConf.create(values), "rlhf")


def test_a_grid_is_every_combination_in_the_order_of_the_command(tmp_path: Path) -> None:
    found = plan(tmp_path, "ppo.beta=0,0.02", "seed=2", "ppo.gamma=1,27.8")
    root = f"tracking.root={tmp_path}"
    assert found.knobs == ["ppo.beta", "ppo.gamma"]
    assert found.points == [
        [root, "ppo.beta=0", "seed=2", "ppo.gamma=1"],
        [root, "ppo.beta=0", "seed=2", "ppo.gamma=27.8"],
        [root, "ppo.beta=0.02", "seed=2", "ppo.gamma=1"],
        [root, "ppo.beta=0.02", "seed=2", "ppo.gamma=27.8"],
    ]
    assert (found.expected, found.config.seed, found.config.ppo.beta) == (4, 2, 0.0)


def test_params_of_the_sweeper_are_swept_too(tmp_path: Path) -> None:
    assert plan(tmp_path, params={"ppo.beta": "0,1"}).knobs == ["ppo.beta"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ppo.beta=0,-1"], r"ppo\.beta: .*greater than or equal to 0, found -1"),
        (["ppo.bta=0,1"], "ppo.bta"),
        (["ppo.beta=0.1,0,0.1"], r"ppo\.beta=0\.1,0,0\.1: found 0\.1 twice; give each value once"),
        (["ppo.beta=range(0,2)", "seed=choice(3,3)"], "seed=.*found 3 twice"),
        (["ppo.beta=interval(0,1)"], r"a grid needs single values.*search=beta_gamma"),
        (["tracking.experiment=a,b"], r"tracking: the points name 2 different places"),
        (["runtime.device=cpu,tpu"], r"runtime\.device: found 'tpu'"),
    ],
)
def test_one_wrong_point_stops_the_sweep_before_it_starts(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(PlumblineError, match=message):
        plan(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.beta=interval(0,1)", "a grid needs single values"),
        ("seed=1,2,1", "found 1 twice"),
        ("ppo.beta=0.1,abc", "ppo.beta: Input should be a valid number"),
    ],
)
def test_a_question_about_a_grid_that_is_none_is_refused_as_the_sweep_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    monkeypatch.setattr(flags, "_asked", ["--explain"])
    values = {"hydra": {"sweeper": {"params": None}, "overrides": {"task": [override]}}}
    with pytest.raises(SystemExit):
        SweepCallback().on_multirun_start(OmegaConf.create(values))
    assert message in capsys.readouterr().err


def test_no_point_at_a_time_is_refused(tmp_path: Path) -> None:
    task = [f"tracking.root={tmp_path}", "seed=1,2"]
    values = {"sweeper": {"_target_": GRID}, "overrides": {"task": task}, "sweep": {"dir": str(tmp_path)}}
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.n_jobs: found 0, expected"):
        read_plan(OmegaConf.create({"hydra": values | {"launcher": {"n_jobs": 0}}}), "rlhf")


def test_a_warning_that_holds_for_every_point_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):  # two sweeps in one process are two
        caplog.clear()
        plan(tmp_path, "ppo.beta=0.1,0.2,0.3", "runtime.threads=64")
        assert sum("64 threads" in record.getMessage() for record in caplog.records) == 1


OPTUNA_SWEEPER = {
    "_target_": OPTUNA,
    "direction": ["maximize", "minimize"],
    "max_failure_rate": 1.0,
    "n_trials": 5,
    "params": {"ppo.beta": "interval(0,1)"},
}


def test_a_search_has_as_many_points_as_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = types.SimpleNamespace(logging=types.SimpleNamespace(set_verbosity=lambda level: None))
    monkeypatch.setitem(sys.modules, "optuna", quiet)  # an extra
    found = plan(tmp_path, "seed=2", **OPTUNA_SWEEPER)
    assert (found.knobs, found.points, found.expected, found.config.seed) == (["ppo.beta"], [], 5, 2)
    whole = plan(tmp_path, **OPTUNA_SWEEPER | {"params": {"sft.epochs": "int(interval(1,5))"}})
    assert whole.knobs == ["sft.epochs"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"direction": ["minimize", "minimize"]}, r"needs \['maximize', 'minimize'\]"),
        ({"direction": "maximize"}, r"hydra\.sweeper\.direction is \['maximize'\]"),
        ({"n_trials": 0}, "hydra.sweeper.n_trials: found 0, expected at least 1"),
        ({"params": {"ppo.beta": "interval(1,0.1)"}}, r"interval from 1 to 0\.1; the lower end comes first"),
        ({"params": {"ppo.beta": "tag(log,interval(0,1))"}}, "from 0 to 1; a log scale begins above 0"),
        (
            {"params": {"sft.epochs": "interval(1,5)"}},
            r"^sft\.epochs=interval.*found 2\.7.*write int\(interval\(1,5\)\)$",
        ),
        ({"params": {"ppo.beta": "interval(-1,1)"}}, r"ppo\.beta: .*greater than or equal to 0, found -1"),
        ({"max_failure_rate": 0.0}, "the first failing point would end the search"),
    ],
)
def test_a_search_that_does_not_fit_its_objectives_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(tmp_path, **OPTUNA_SWEEPER | changes)


def test_the_search_space_that_is_shipped_composes_and_fits_the_objectives() -> None:
    assert load(["search=beta_gamma"]) == load()
    written = OmegaConf.load(CONF / "search" / "beta_gamma.yaml").hydra.sweeper
    assert list(written.direction) == weighing().directions
    assert set(written.params) == {"ppo.beta", "ppo.gamma"}


@pytest.mark.parametrize("argument", ["hydra/launcher=joblib", "hydra/sweeper=optuna", "search=beta_gamma"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package hydra_\w+, which is not installed; run .*\[sweep\]"):
        require_plugins(["-m", argument])
    require_plugins(["-m", "ppo.beta=0,1", "search=null", "hydra/launcher=basic"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"returns": ["win_rate", "win_rate"]}, "names something twice"),
        ({"costs": []}, "at least 1 item"),
        ({"quality": "kl"}, "quality"),
        ({"max_regression": -0.1}, "greater than or equal to 0"),
    ],
)
def test_a_weighing_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighing(**changes)


def test_flags_are_taken_out_answered_in_order_and_imported_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[tuple[str, float]] = []
    modules = {}
    for name in ("explain", "dry_run"):
        module = types.ModuleType(f"made_up_{name}")
        setattr(module, name, lambda config, name=name: answered.append((name, config.ppo.beta)))
        modules[name] = module
        monkeypatch.setitem(sys.modules, module.__name__, module)
    places = {"--explain": "made_up_explain:explain", "--dry-run": "made_up_dry_run:dry_run"}
    monkeypatch.setattr(flags, "FLAGS", places)
    assert flags.take_flags(["ppo.beta=1", "--dry-run", "-m", "--explain"]) == ["ppo.beta=1", "-m"]
    assert flags.asked()
    flags.answer(load(["ppo.beta=1"]))
    assert answered == [("explain", 1.0), ("dry_run", 1.0)]
    assert flags.take_flags(["ppo.beta=1"]) == ["ppo.beta=1"] and not flags.asked()


def test_a_flag_refuses_launchers_and_sweepers() -> None:
    with pytest.raises(ConfigError, match="leave out hydra/launcher=joblib"):
        flags.take_flags(["--explain", "-m", "hydra/launcher=joblib"])


def test_why_a_point_failed_is_not_cut_at_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = waiting(0, ["ppo.beta=-1"], ["ppo.beta"])
    failed = failed.model_copy(update={"state": "failed", "error": "invalid configuration\n  ppo.beta: found -1"})
    monkeypatch.setattr(session, "finish", lambda interrupted=False: [failed])
    with (
        pytest.raises(PlumblineError, match=r"invalid configuration ppo\.beta: found -1"),
        session.reported_at_the_end(),
    ):
        pass
