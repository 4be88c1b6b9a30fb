"""The study with real pipelines at the smallest size: points in worker processes, resume, failure, MLflow."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.study.config import StudyConfig
from flows.study.study import StudyOutcome, plan_of, study
from tasks.engine.errors import ConfigError
from tests.unit.study.synthetic import study_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]
SMALL = ["scale=miniature", "seeds=[1]", "grid.comparison_prompts=[40]", "grid.pair_prompts=[]", "grid.roads=[]"]


def config_for(root: Path, *overrides: str) -> StudyConfig:
    config = study_config(*SMALL, *overrides)
    return config.model_copy(update={"overrides": [*config.overrides, f"tracking.root={root}"]})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def first(root: Path, prefect_api: str) -> StudyOutcome:
    return study(config_for(root, "grid.gammas=[0,1]"), "command")


def records(root: Path) -> dict[str, dict]:  # type: ignore[type-arg]
    found = [json.loads(path.read_text()) for path in root.glob("study/points/*.json")]
    return {f"{item['point']['setting']} seed={item['point']['seed']}": item for item in found}


def test_every_point_has_numbers_and_the_page_shows_them(first: StudyOutcome, root: Path) -> None:
    found = records(root)
    assert len(found) == 4
    assert all(item["error"] is None for item in found.values())
    assert found["beta=0.3 gamma=1 seed=1"]["metrics"]["policy/kl"] != 0
    assert len(found["beta=0.3 gamma=1 seed=1"]["history"]) == 2
    assert found["comparisons=40 element=prompt seed=1"]["metrics"]["log_loss/valid"] > 0
    epochs = found["sft epochs=2 seed=1"]["metrics"]
    assert {"valid/loss_epoch_2", "valid/reward_epoch_2"} <= set(epochs)
    assert "4 of 4 points measured" in first.page.read_text()
    assert set(first.findings.values()) == {"not measured"}  # one seed


def test_mlflow_nests_the_points_below_the_study(first: StudyOutcome, root: Path) -> None:
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    parent = client.get_run(first.run_id)
    assert (parent.info.status, parent.data.tags["plumbline.role"]) == ("FINISHED", "study")
    assert parent.data.tags["finding.alignment_tax"] == "not measured"
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{first.run_id}'", max_results=100
    )
    assert {child.info.run_name for child in children} == set(records(root))
    names = {item.path for item in client.list_artifacts(first.run_id)}
    assert {"study.html", "study.md", "figures"} <= names


def test_again_runs_only_what_is_missing(first: StudyOutcome, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.glob("study/points/*.json")}
    removed = next(path for path in before if "element" in path.read_text())
    removed.unlink()
    again = study(config_for(root, "grid.gammas=[0,1]"), "command")
    assert "4 points, 3 measured already, 1 to run" in capsys.readouterr().out
    assert again.run_id == first.run_id
    after = {path: path.stat().st_mtime_ns for path in root.glob("study/points/*.json")}
    assert {path for path in after if after[path] != before[path]} == {removed}


def test_a_failing_point_does_not_stop_the_rest_and_is_run_again(
    first: StudyOutcome, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks = "+grid.ablations={broken: ['ppo.policy_adam.learning_rate=1.0e30']}"  # not a number after the first step
    config = config_for(root, "grid.gammas=[0,1]", breaks)
    outcome = study(config, "command")
    assert [record.point.name for record in outcome.failed] == ["broken seed=1"]
    assert "broken seed=1: failed" in outcome.page.read_text()
    assert "FAILED" in capsys.readouterr().out
    study(config, "command")
    assert "5 points, 4 measured already, 1 to run" in capsys.readouterr().out


def test_the_page_alone(first: StudyOutcome, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_for(root, "grid.gammas=[0,1]", "only_page=true")
    first.page.unlink()
    assert study(config, "command").page == first.page
    assert first.page.is_file()
    assert "to run" not in capsys.readouterr().out


def test_points_that_cannot_be_composed_stop_the_study_at_once(root: Path) -> None:
    config = config_for(root, "grid.gammas=[0,1]", "+grid.ablations={typo: ['ppo.bta=1']}")
    with pytest.raises(ConfigError, match="bta"):
        plan_of(config)


def test_every_road_is_a_point_with_numbers_of_its_own(first: StudyOutcome, root: Path) -> None:
    nothing_else = ["grid.gammas=[]", "grid.comparison_prompts=[]", "grid.sft_epochs=0"]
    outcome = study(config_for(root, *nothing_else, "grid.roads=[rloo,dpo,rejection_sampling]"), "command")
    assert not outcome.failed and list(outcome.findings) == ["rival_roads"]
    found = {name: item["metrics"] for name, item in records(root).items() if name.startswith("road=")}
    assert len(found) == 4
    scores = [item["policy/score_gold"] for item in found.values()]
    assert len(set(scores)) == 4
    assert found["road=rloo seed=1"]["cost/samples"] == 64 and "cost/samples" not in found["road=dpo seed=1"]
    assert found["road=random_control seed=1"]["cost/samples"] == 32
    assert "At equal KL: not measured with enough seeds." in outcome.page.read_text()


def test_every_brake_is_a_point_that_tells_how_often_it_held(first: StudyOutcome, root: Path) -> None:
    nothing_else = ["grid.gammas=[]", "grid.comparison_prompts=[]", "grid.sft_epochs=0"]
    braked = ["grid.brakes=[stop]", "grid.braked_episodes=160"]  # five iterations, of which gold can choose
    outcome = study(config_for(root, *nothing_else, *braked), "command")
    assert not outcome.failed and list(outcome.findings) == ["brake"]
    found = {name: item for name, item in records(root).items() if "over-optimised" in name or "healthy" in name}
    assert len(found) == 4
    held = {name for name, item in found.items() if "brake/interventions" in item["metrics"]}
    assert held == {"over-optimised brake=stop seed=1", "healthy brake=stop seed=1"}
    assert [len(item["history"]) for name, item in sorted(found.items())] == [2, 5, 5, 5]
