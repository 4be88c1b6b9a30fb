"""What can be known to fail is said before any work, in one sentence."""

import re
from pathlib import Path

import pytest

from flows.ask.doctor.requirements import check_data, check_device, check_runner
from flows.ask.preflight import check
from flows.config import RLHFConfig, load
from tasks.engine.errors import ConfigError, PlumblineError
from tasks.language.models import save_policy
from tests.unit import tiny_models


def config(root: Path, *overrides: str) -> RLHFConfig:
    return load([f"tracking.root={root}", *overrides])


def model_folder(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    return folder


def test_the_default_passes(tmp_path: Path) -> None:
    check(config(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"found no config\.json"),
        (["config.json", "model.safetensors"], "found no tokenizer"),
        (["config.json", "tokenizer.json"], "found no weights"),
        (["config.json", "tokenizer.json", "pytorch_model.bin"], "found only pickled weights"),
    ],
)
def test_an_incomplete_model_folder_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    folder = model_folder(tmp_path / "model", *files)
    with pytest.raises(PlumblineError, match=message):
        check(config(tmp_path, "model=pretrained", f"model.name_or_path={folder}"))


def test_a_file_in_the_place_of_a_model_folder_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(PlumblineError, match=r"model\.safetensors is a file; give the folder that it is in"):
        check(config(tmp_path, "model=pretrained", f"model.name_or_path={tmp_path / 'model.safetensors'}"))


def test_a_complete_model_folder_passes(tmp_path: Path) -> None:
    save_policy(tiny_models.policy(context=2048), tiny_models.tokenizer(), tmp_path / "model")
    check(config(tmp_path, "model=pretrained", f"model.name_or_path={tmp_path / 'model'}"))


def test_a_model_that_reads_less_is_refused_with_all_that_must_be_lowered(tmp_path: Path) -> None:
    save_policy(tiny_models.policy(context=64), tiny_models.tokenizer(), tmp_path / "model")
    long = ["model.context_tokens=128", "data_prep.prompt_tokens=100"]
    with pytest.raises(PlumblineError, match=r"reads 64 tokens.*set model\.context_tokens=64") as refused:
        check(config(tmp_path, "model=pretrained", f"model.name_or_path={tmp_path / 'model'}", *long))
    assert "data_prep.prompt_tokens=32 data_prep.response_tokens=32" in str(refused.value)


def test_a_hub_name_is_not_mistaken_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(PlumblineError, match="expected a local folder, or a hub and a network"):
        check(config(tmp_path, "model=pretrained", "model.name_or_path=organisation/model"))


def test_a_missing_data_folder_is_refused(tmp_path: Path) -> None:
    overrides = ["experiment=own_data", "model.name_or_path=organisation/model", "data_prep.folder=/does/not/exist"]
    with pytest.raises(PlumblineError, match="expected a folder with data files"):
        check(config(tmp_path, *overrides))


@pytest.mark.parametrize(
    ("overrides", "found", "knobs"),
    [
        ([], "found no file for documents", "ppo.gamma and ppo_init.pretraining_fraction are above 0"),
        (["ppo.gamma=0"], "found no file for documents", "ppo_init.pretraining_fraction is above 0"),
        (
            ["data_prep=hub", "~data_prep.hub.documents"],
            "data_prep.hub: found no dataset for documents",
            "ppo.gamma and",
        ),
    ],
)
def test_missing_documents_are_known_before_anything_runs(
    tmp_path: Path, overrides: list[str], found: str, knobs: str
) -> None:
    given = ["experiment=own_data", "model.name_or_path=organisation/model"]
    folder = [] if "data_prep=hub" in overrides else [f"data_prep.folder={tmp_path}"]
    with pytest.raises(PlumblineError, match=rf"{found}, expected some because {re.escape(knobs)}"):
        check(config(tmp_path / "store", *given, *folder, *overrides))
    if folder:
        (tmp_path / "pretrain.parquet").write_bytes(b"")
        check_data(config(tmp_path / "store", *given, *folder, *overrides))


def test_a_store_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlumblineError, match=r"a file stands where a folder is needed.*tracking\.root"):
        check(config(tmp_path / "file"))


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "expected cpu, cuda"), ("cuda:99", "torch sees"), ("cuda:x", "expected")]
)
def test_a_device_that_is_not_there_is_refused(device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_device(device)


@pytest.mark.parametrize(("device", "gpus", "processes"), [("cuda", 2, 3), ("cuda:1", 4, 2)])
def test_a_stage_on_more_processes_than_cards_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, processes: int
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with pytest.raises(
        ConfigError, match=rf"runtime\.processes: {processes} asked for .* has {gpus if device == 'cuda' else 1} of"
    ):
        check_device(device, processes)
    check_device(device, 1)
    check_device("cuda", gpus)
    check_device("cpu", 64)


def test_a_runner_without_its_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -c constraints\.txt -e \.\[ray\]"):
        check_runner("ray")
    check_runner("processes")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["evaluation.toxicity.scorer=word_list", "evaluation.toxicity.path=/no/such/list"],
            "cannot read the word list",
        ),
        (
            [
                "evaluation.toxicity.scorer=classifier",
                "evaluation.toxicity.path=/no",
                "evaluation.toxicity.toxic_label=toxic",
            ],
            r"evaluation\.toxicity\.path: /no has no config\.json",
        ),
        (["evaluation.suite.tasks=[instructgpt]", "evaluation.suite.folder=/no"], "has none of the files crows_pairs"),
    ],
)
def test_what_the_evaluation_needs_is_looked_for(tmp_path: Path, overrides: list[str], message: str) -> None:
    if "suite" in overrides[0]:
        pytest.importorskip("lm_eval")
    with pytest.raises(PlumblineError, match=message):
        check(config(tmp_path, *overrides))
