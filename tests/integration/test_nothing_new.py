"""A run with nothing to do ends in a state of its own: real Prefect server, real MLflow database, made-up artifacts."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.config import RLHFConfig, load
from flows.rlhf import rlhf
from flows.run.nothing_new import NOTHING_NEW, NothingNew, skipped
from flows.run.summary import Outcome
from flows.sweep.membership import as_point
from tasks.engine.tracking import prepare
from tests.integration.test_explain import fill

pytestmark = pytest.mark.usefixtures("prefect_api")
ON = "tracking.skip_when_nothing_new=true"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Path:
    root = tmp_path_factory.mktemp("filled")
    fill(load([f"tracking.root={root}"]))
    return root


def config(root: Path, *overrides: str) -> RLHFConfig:
    return load([f"tracking.root={root}", ON, *overrides])


@pytest.fixture
def client(root: Path) -> MlflowClient:
    uri = f"sqlite:///{root / 'mlflow.db'}"
    prepare(uri, "rlhf", root / "mlflow")
    return MlflowClient(uri)


@pytest.fixture
def finished(root: Path, client: MlflowClient) -> str:
    """A run that decided about the policy, and ended."""
    experiment = client.get_experiment_by_name("rlhf").experiment_id
    parent = client.create_run(experiment).info.run_id
    (gate,) = (root / "artifacts" / "gate-ppo_ptx").iterdir()
    client.create_run(experiment, tags={"mlflow.parentRunId": parent, "artifact": f"gate-ppo_ptx/{gate.name}"})
    client.update_run(parent, status="FINISHED")
    return str(parent)


def test_nothing_new_is_a_completed_state_that_names_the_run(root: Path, client: MlflowClient, finished: str) -> None:
    def runs() -> int:
        return len(client.search_runs([client.get_experiment_by_name("rlhf").experiment_id]))

    before = runs()
    state = rlhf(config(root), return_state=True)
    assert (state.name, state.type.value) == (NOTHING_NEW, "COMPLETED")
    assert state.message == (
        f"no comparison is new: all 13 stages up to the report are in the store, and run {finished} decided about its policy; "
        "tracking.skip_when_nothing_new=false runs it all the same"
    )
    assert rlhf(config(root)) == NothingNew(state.message)
    assert runs() == before


def test_what_nobody_finished_is_not_skipped(root: Path, client: MlflowClient, finished: str) -> None:
    for run in client.search_runs([client.get_experiment_by_name("rlhf").experiment_id]):
        client.update_run(run.info.run_id, status="KILLED")
    assert skipped(config(root), Outcome) is None
    client.update_run(finished, status="FINISHED")
    assert skipped(config(root), Outcome) is not None


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    "override",
    ["comparisons.seed=9", "ppo.beta=0.07", "evaluation.gate.min_win_rate=0.6", "tracking.skip_when_nothing_new=false"],
)
def test_what_is_new_or_wanted_runs(root: Path, override: str) -> None:
    assert skipped(config(root), Outcome) is not None
    assert skipped(config(root, override), Outcome) is None


@pytest.mark.usefixtures("finished")
def test_points_of_a_sweep_run(root: Path) -> None:
    with as_point("study", "study", 1):
        assert skipped(config(root), Outcome) is None
