"""``python -m flows.store`` over made-up artifacts and a real MLflow database."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows import store as module
from flows.store import collect, garbage, readable, show_list, verify, with_parents
from flows.tools.references import References
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.errors import ArtifactError, ConfigError
from tasks.engine.shared import SharedStore
from tasks.engine.tracking import prepare
from tests.unit.engine.test_stage import in_one_file

pytestmark = pytest.mark.usefixtures("home")
PRINT = "0123456789abcdef{:04x}"


class World:
    """A store and a tracking database: two pipeline runs that share ``data``, and things that nothing speaks of."""

    def __init__(self, root: Path) -> None:
        self.store = ArtifactStore(root / "artifacts")
        self.uri = f"sqlite:///{root / 'mlflow.db'}"
        self.experiment = prepare(self.uri, "test", root / "mlflow")
        self.client = MlflowClient(self.uri)
        self.refs: dict[str, ArtifactRef] = {}
        self.first, self.second = (self.run(name) for name in ("beta=0.1", "beta=0.2"))
        self.make("data", "data_prep", 1, {}, self.first)
        self.make("old_sft", "sft", 2, {"data": "data"}, None)
        self.make("old_ppo", "ppo", 3, {"data": "data", "sft": "old_sft"}, None)
        self.make("sft", "sft", 4, {"data": "data"}, None)  # its run was deleted, but ppo was made from it
        self.make("ppo1", "ppo", 5, {"data": "data", "sft": "sft"}, self.first)
        self.make("ppo2", "ppo", 6, {"data": "data", "sft": "sft"}, self.second)

    def run(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        return str(self.client.create_run(self.experiment, run_name=name, tags=dict(tags or {})).info.run_id)

    def make(self, name: str, stage: str, number: int, inputs: dict[str, str], parent: str | None) -> None:
        made = PRINT.format(number)
        parents = {key: self.refs[value] for key, value in inputs.items()}
        run_id = ""
        if parent is not None:
            tags = {"mlflow.parentRunId": parent, "plumbline.stage": stage, "fingerprint": made}
            run_id = self.run(stage, tags)
        with self.store.publish(stage, made, parents, {}) as draft:
            (draft.folder / "result.txt").write_text(name)
            draft.run_id = run_id
        assert draft.ref is not None
        self.refs[name] = draft.ref

    def left(self) -> set[str]:
        found = {ref.key: name for name, ref in self.refs.items()}
        return {found[f"{stage}/{made}"] for stage, made in self.store.artifacts()}

    def gc(self, *keep: str, delete: bool = True) -> set[str]:
        collect(self.store, References(self.uri, self.store.root), list(keep), delete)
        return self.left()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; building one takes longer than any test here."""
    root = tmp_path_factory.mktemp("database")
    prepare(f"sqlite:///{root / 'mlflow.db'}", "test", root / "mlflow")
    in_one_file(root / "mlflow.db")
    return root / "mlflow.db"


@pytest.fixture
def world(database: Path, tmp_path: Path) -> World:
    shutil.copy(database, tmp_path)
    return World(tmp_path)


def test_without_delete_nothing_is_touched_and_everything_is_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.gc(delete=False) == set(world.refs)
    said = capsys.readouterr().out
    assert world.refs["old_sft"].key in said and world.refs["old_ppo"].key in said
    assert world.refs["sft"].key not in said and world.refs["ppo1"].key not in said
    assert "2 folders" in said and "nothing was deleted" in said


def test_what_runs_refer_to_stays_with_all_it_was_made_from(world: World) -> None:
    assert world.gc() == {"data", "sft", "ppo1", "ppo2"}
    assert verify(world.store) == 0


def test_a_deleted_run_keeps_nothing(world: World) -> None:
    for run in world.client.search_runs([world.experiment], f"tags.`mlflow.parentRunId` = '{world.second}'"):
        world.client.delete_run(run.info.run_id)
    world.client.delete_run(world.second)
    assert world.gc() == {"data", "sft", "ppo1"}


@pytest.mark.parametrize("called", ["name", "id", "beginning of the id"])
def test_only_named_runs_are_kept_if_any_are_named(world: World, called: str) -> None:
    names = {"name": "beta=0.2", "id": world.second, "beginning of the id": world.second[:8]}
    assert world.gc(names[called]) == {"data", "sft", "ppo2"}


def test_a_run_that_does_not_exist_is_an_error_and_nothing_goes(world: World) -> None:
    with pytest.raises(ConfigError, match=r"--keep-run beta=0\.7: MLflow at .* has no run with this name or id"):
        world.gc("beta=0.7")
    assert world.left() == set(world.refs)


def test_registered_models_keep_what_their_run_made(world: World) -> None:
    world.client.create_registered_model("policy")
    [stage] = world.client.search_runs(
        [world.experiment], f"tags.`mlflow.parentRunId` = '{world.first}' and tags.`plumbline.stage` = 'ppo'"
    )
    world.client.create_model_version("policy", f"runs:/{stage.info.run_id}/policy", stage.info.run_id)
    world.client.create_registered_model("older")
    world.client.create_model_version("older", "somewhere", tags={"artifact": world.refs["old_sft"].key})
    released = world.store.folder("ppo", world.refs["old_ppo"].fingerprint) / "policy"
    world.client.create_registered_model("released")  # its run was deleted since
    version = world.client.create_model_version("released", released.as_uri(), "0" * 32)
    names = References(world.uri, world.store.root).by_artifact()
    assert names[world.refs["old_ppo"].key] == [f"released version {version.version}"]
    assert world.gc("beta=0.2") == {"data", "sft", "ppo1", "ppo2", "old_ppo", "old_sft"}
    names = References(world.uri, world.store.root).by_artifact()[world.refs["ppo1"].key]
    assert "policy version 1" in names and names[0].startswith("beta=0.1 (")


def test_a_tracking_database_that_knows_nothing_of_the_store_deletes_nothing(world: World, tmp_path: Path) -> None:
    nothing = References(f"sqlite:///{tmp_path / 'no.db'}", world.store.root)
    assert not (tmp_path / "no.db").exists()
    with pytest.raises(ArtifactError, match=r"so that everything would go; if that is meant, remove the folder"):
        collect(world.store, nothing, [], delete=True)
    assert world.left() == set(world.refs)


def test_training_state_stays_only_while_its_stage_is_unfinished(world: World) -> None:
    unfinished = world.store.checkpoints("ppo", PRINT.format(99))
    finished = world.store.checkpoints("ppo", world.refs["ppo1"].fingerprint)
    draft = world.store.root / "drafts" / f"evaluation-ppo_ptx-{PRINT.format(7)}-0badcafe"
    notes = world.store.root / "runs" / "gone"
    for folder in (unfinished, finished, draft, notes):
        folder.mkdir(exist_ok=True)
        (folder / "file").touch()
    found = {item.path: (item.stage, item.fingerprint) for item in garbage(world.store, set())}
    assert found[draft] == ("evaluation-ppo_ptx", PRINT.format(7))
    world.gc()
    assert unfinished.is_dir() and not finished.exists() and not draft.exists() and not notes.exists()


def test_a_store_in_use_is_left_alone(world: World) -> None:
    script = (
        "import sys, time\nfrom tasks.engine.artifacts import ArtifactStore\n"
        "with ArtifactStore(sys.argv[1]).in_use():\n    print('used', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(world.store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None and user.stdout.readline() == "used\n"
        with pytest.raises(ArtifactError, match="a run is using it; nothing was touched"):
            world.gc()
        assert world.left() == set(world.refs)
        assert world.gc(delete=False) == set(world.refs)  # looking is allowed
        user.kill()
    assert world.gc() == {"data", "sft", "ppo1", "ppo2"}


def test_a_locked_artifact_is_left_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    ref = world.refs["old_ppo"]
    with world.store.lock(ref.stage, ref.fingerprint):
        assert world.gc() == {"data", "sft", "ppo1", "ppo2", "old_ppo"}
    assert "in use, kept" in capsys.readouterr().out


def test_verify_names_every_damaged_and_missing_file(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    folders = {name: world.store.folder(ref.stage, ref.fingerprint) for name, ref in world.refs.items()}
    (folders["ppo1"] / "result.txt").write_text("qqo1")
    (folders["ppo2"] / "result.txt").unlink()
    (folders["sft"] / "manifest.json").write_text("{")
    assert verify(world.store) == 3
    said = capsys.readouterr().out
    assert f"{world.refs['ppo1'].key}: file result.txt has digest" in said
    assert f"{world.refs['ppo2'].key}: file result.txt is missing" in said
    assert f"{world.refs['sft'].key}: manifest.json is missing or unreadable" in said


def test_list_shows_size_run_and_who_refers_to_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    show_list(world.store, References(world.uri, world.store.root))
    lines = [re.split(" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["stage", "fingerprint", "size", "made", "MLflow run", "referenced by"]
    rows = {(row[0], row[1]): row for row in lines[1:-1]}
    data, old = (rows[world.refs[name].stage, world.refs[name].fingerprint] for name in ("data", "old_ppo"))
    assert data[4] in {run.info.run_id[:8] for run in world.client.search_runs([world.experiment])}
    assert data[5] == f"beta=0.1 ({world.first[:8]})" and old[5] == "-"
    assert lines[-1][0].startswith("6 artifacts")


def test_parents_are_followed_to_the_end(world: World) -> None:
    keys = {name: ref.key for name, ref in world.refs.items()}
    assert with_parents(world.store, [keys["old_ppo"]]) == {keys["old_ppo"], keys["old_sft"], keys["data"]}


@pytest.mark.parametrize(("size", "words"), [(7, "7 B"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (4e12, "4000.0 GB")])
def test_sizes_are_readable(size: float, words: str) -> None:
    assert readable(size) == words


def test_the_command_line_ends_with_the_status_of_what_it_found(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*words: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["store", *words, f"tracking.root={tmp_path}"])
        try:
            return module.main()
        except SystemExit as end:
            return end.code

    assert command("verify") == 0
    assert command("gc", "--delete", "--keep-run", "beta=0.2") is None
    assert world.left() == {"data", "sft", "ppo2"}
    (world.store.folder("sft", world.refs["sft"].fingerprint) / "result.txt").unlink()
    assert command("verify") == 1
    assert str(command("gc", "--keep-run", "nobody")).startswith("error: --keep-run nobody")
    assert "damaged or missing: 1;" in capsys.readouterr().out


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["store", "list", f"tracking.root={tmp_path / 'misspelt'}"])
    with pytest.raises(SystemExit, match="misspelt/artifacts: no such folder, expected a store"):
        module.main()
    assert not (tmp_path / "misspelt").exists()


def test_what_is_shared_is_listed_and_verified_and_only_copies_of_it_are_garbage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"file://{tmp_path}/shared"
    one, other = SharedStore(tmp_path / "one", address), SharedStore(tmp_path / "other", address)
    made = []
    for number, text in ((1, "first"), (2, "the second")):
        with one.publish("sft", PRINT.format(number), {}, {}) as draft:
            (draft.folder / "result.txt").write_text(text)
        assert draft.ref is not None
        made.append(draft.ref)
    assert garbage(other, set()) == []
    copy = other.open(made[0])
    assert [(item.path, item.what) for item in garbage(other, set())] == [(copy, "artifact")]
    show_list(other, References(f"sqlite:///{tmp_path / 'no.db'}", other.root))
    assert verify(other) == 0
    listed = capsys.readouterr().out
    assert "2 artifacts, " in listed and f"in {address}" in listed and "  10 B  " in listed
    (there,) = (tmp_path / "shared" / "sft" / made[1].fingerprint).glob("*/result.txt")
    there.write_text("the secund")
    assert verify(other) == 1 and "result.txt in file://" in capsys.readouterr().out
