"""The alias after a sweep, in a real MLflow database."""

import pytest
from mlflow import MlflowClient

from flows.config import load
from flows.sweep.champion import promote_best
from flows.sweep.findings import weigh
from flows.sweep.record import SweptPoint
from tasks.engine.registry import register_model
from tasks.engine.tracking import prepare, start_sweep_run
from tasks.gate.config import GateConfig
from tests.unit.sweep.points import point, sweep, weighing

GATE = load().evaluation.gate


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """URI and the sweep's run; versions 1 to 4 are registered, and version 4 is the champion."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    run = start_sweep_run(uri, prepare(uri, "rlhf", folder / "artifacts"), "sweep", {}, {})
    for number in range(4):
        (folder / str(number)).mkdir()
        name, alias = str(GATE.model_name), None if number < 3 else GATE.alias
        assert register_model(uri, name, alias, folder / str(number), run, {"digest": str(number)}) == str(number + 1)
    return uri, run


def champion(uri: str) -> str:
    return str(MlflowClient(uri).get_model_version_by_alias(str(GATE.model_name), GATE.alias).version)


def promote(tracked: tuple[str, str], points: list[SweptPoint], gate: GateConfig = GATE) -> str | None:
    uri, run = tracked
    record = sweep("ppo.beta").model_copy(update={"tracking_uri": uri, "run_id": run})
    return promote_best(record, points, weigh(points, weighing()), gate)


@pytest.fixture
def points() -> list[SweptPoint]:
    """By hand: 2 wins most and loses too much, 1 is next and broke its gate, 0 is the best that passed, 3 is poorer."""
    rates = [(0.60, 0.0), (0.64, 0.0), (0.70, 0.05), (0.55, 0.0)]
    made = [point(number, {"ppo.beta": str(number)}, win, 1.0, loss) for number, (win, loss) in enumerate(rates)]
    versions = ["1", None, "2", "3"]
    return [item.model_copy(update={"version": number}) for item, number in zip(made, versions, strict=True)]


def test_the_alias_moves_once_to_the_best_point_that_passed(
    tracked: tuple[str, str], points: list[SweptPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote(tracked, points) == "1"
    assert champion(tracked[0]) == "1"
    assert "version 1, champion: #0 ppo.beta=0" in capsys.readouterr().out
    tags = MlflowClient(tracked[0]).get_run(tracked[1]).data.tags
    assert tags["plumbline.champion"] == "version 1, #0 ppo.beta=0"


def test_no_point_that_passed_leaves_it_where_it_was(
    tracked: tuple[str, str], points: list[SweptPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    before = champion(tracked[0])
    assert promote(tracked, [points[1], points[2]]) is None
    assert champion(tracked[0]) == before
    assert "champion stays where it was" in capsys.readouterr().out


def test_nothing_registered_nothing_moved(tracked: tuple[str, str], points: list[SweptPoint]) -> None:
    before = champion(tracked[0])
    assert promote(tracked, points, GATE.model_copy(update={"model_name": None})) is None
    assert champion(tracked[0]) == before
