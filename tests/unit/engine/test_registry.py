"""The model registry, against a real MLflow database in a temporary folder."""

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.engine.registry import (
    Champion,
    artifacts_of,
    champion_of,
    log_model,
    register_model,
    registered_version,
    runs_of_stages,
)
from tasks.engine.shared import SharedStore
from tasks.engine.tracking import prepare, start_pipeline_run
from tasks.language.models import save_policy
from tasks.release.mlmodel import write_mlmodel
from tests.unit import tiny_models


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """URI, experiment, run."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment = prepare(uri, "rlhf", folder / "artifacts")
    return uri, experiment, start_pipeline_run(uri, experiment, "run", {}, {})


def policy(folder: Path, seed: int) -> Path:
    save_policy(tiny_models.policy(seed), tiny_models.tokenizer(), folder / "policy")
    return folder / "policy"


def test_versions_the_alias_and_loading(tracked: tuple[str, str, str], tmp_path: Path) -> None:
    uri, _, run = tracked
    client = MlflowClient(uri)
    first, second = policy(tmp_path / "one", 1), policy(tmp_path / "two", 2)
    assert register_model(uri, "p", "champion", first, run, {"digest": "a", "policy/kl": "0.5"}) == "1"
    assert register_model(uri, "p", "champion", second, run, {"digest": "b"}) == "2"
    champion = client.get_model_version_by_alias("p", "champion")
    assert (champion.version, champion.tags["digest"], champion.run_id) in ((2, "b", run), ("2", "b", run))
    # the first again: no third version, and the alias goes back
    assert register_model(uri, "p", "champion", first, run, {"digest": "a"}) == "1"
    assert len(client.search_model_versions("name = 'p'")) == 2
    assert client.get_model_version_by_alias("p", "champion").tags["policy/kl"] == "0.5"
    # nothing was copied, and the registry leads to a folder that transformers loads
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        folder = mlflow.artifacts.download_artifacts("models:/p@champion")
    finally:
        mlflow.set_tracking_uri(before)
    assert Path(folder) == first
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.get_input_embeddings().weight.equal(tiny_models.policy(1).get_input_embeddings().weight)
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<eos>"


def test_mlflow_loads_and_runs_the_champion(tracked: tuple[str, str, str], tmp_path: Path) -> None:
    uri, _, run = tracked
    folder = policy(tmp_path, 3)
    write_mlmodel(folder)
    register_model(uri, "plumbline-policy", "champion", folder, run, {"digest": "c"})
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        pipeline = mlflow.transformers.load_model("models:/plumbline-policy@champion", device="cpu")
    finally:
        mlflow.set_tracking_uri(before)
    assert pipeline.model.get_input_embeddings().weight.equal(tiny_models.policy(3).get_input_embeddings().weight)
    written = pipeline("q : the cat a :", max_new_tokens=4, do_sample=False)[0]["generated_text"]
    assert written.startswith("q : the cat a :")
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == len(tiny_models.WORDS)  # as before


def test_models_and_their_figures_are_in_the_models_tab(tracked: tuple[str, str, str]) -> None:
    uri, experiment, run = tracked
    client = MlflowClient(uri)
    tags = {"mlflow.parentRunId": run, "plumbline.stage": "ppo_ptx"}
    stage = client.create_run(experiment, tags=tags).info.run_id
    assert runs_of_stages(uri, run)["ppo_ptx"] == stage
    figures = {"win_rate_gold": 0.75, "kl": 3.5, "benchmarks_vs_sft": float("nan")}
    made = log_model(uri, stage, "ppo_ptx", "policy", figures, {"artifact": "ppo_ptx/1"})
    (found,) = client.search_logged_models([experiment], filter_string="name = 'ppo_ptx'")
    assert (found.model_id, found.model_type, found.status) == (made, "policy", "READY")
    assert {metric.key: metric.value for metric in found.metrics} == {"model/win_rate_gold": 0.75, "model/kl": 3.5}
    assert found.tags["artifact"] == "ppo_ptx/1" and found.source_run_id == stage


def test_a_folder_that_moved_is_registered_anew(tracked: tuple[str, str, str], tmp_path: Path) -> None:
    uri, _, run = tracked
    old = policy(tmp_path / "old", 1)
    assert register_model(uri, "moved", "champion", old, run, {"digest": "a"}) == "1"
    new = old.rename(tmp_path / "new")
    assert register_model(uri, "moved", "champion", new, run, {"digest": "a"}) == "2"


def test_artifacts_of_a_run(tracked: tuple[str, str, str]) -> None:
    uri, experiment, run = tracked
    client = MlflowClient(uri)
    for stage, key in (("data_prep", "data_prep/1"), ("sft", "sft/2"), ("ppo", None)):
        tags = {"mlflow.parentRunId": run, "plumbline.stage": stage} | ({"artifact": key} if key else {})
        client.create_run(experiment, tags=tags)
    assert artifacts_of(uri, run) == {"data_prep": "data_prep/1", "sft": "sft/2"}
    assert artifacts_of(uri, "nowhere") == {}


def test_equal_weights_are_one_version_wherever_the_released_folder_lies(
    tracked: tuple[str, str, str], tmp_path: Path
) -> None:
    uri, _, run = tracked
    first, again, other = policy(tmp_path / "a", 1), policy(tmp_path / "b", 1), policy(tmp_path / "c", 2)
    assert register_model(uri, "same", "champion", first, run, {"digest": "a", "weights": "w"}) == "1"
    # released again by another evaluation: another folder, even another artifact
    assert register_model(uri, "same", "champion", again, run, {"digest": "b", "weights": "w"}) == "1"
    assert champion_of(uri, "same", "champion") == Champion(first, "w")
    assert register_model(uri, "same", "champion", other, run, {"digest": "c", "weights": "v"}) == "2"
    assert champion_of(uri, "same", "champion") == Champion(other, "v")
    assert champion_of(uri, "same", "nobody") is None and champion_of(uri, "nothing", "champion") is None


def test_a_version_of_another_machine_is_found_in_the_shared_store(
    tracked: tuple[str, str, str], tmp_path: Path
) -> None:
    uri, _, run = tracked
    address = f"file://{tmp_path}/shared"
    one = SharedStore(tmp_path / "one", address)
    with one.publish("release", "0123456789abcdef0123", {}, {}) as draft:
        policy(draft.folder / "policy", 1)
    assert draft.ref is not None
    folder = one.open(draft.ref) / "policy"
    assert register_model(uri, "shared", "champion", folder, run, {"digest": "a", "weights": "w"}) == "1"
    shutil.rmtree(tmp_path / "one")
    other = SharedStore(tmp_path / "other", address)
    here = tmp_path / "other" / "release" / "0123456789abcdef0123" / "policy"
    assert registered_version(uri, "models:/shared@champion", other) == (here, None) and here.is_dir()
    assert champion_of(uri, "shared", "champion", other) == Champion(here, "w")
    assert champion_of(uri, "shared", "champion") is None
