import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.engine.artifacts import ArtifactRef, ArtifactStore, write_json
from tasks.engine.digests import content_digest
from tasks.engine.errors import ArtifactError
from tasks.engine.os_errors import readable_os_errors


def publish(store: ArtifactStore, text: str = "hello", fingerprint: str = "f1") -> ArtifactRef:
    with store.publish("sft", fingerprint, {}, {"config": {"epochs": 1}}) as draft:
        (draft.folder / "sub").mkdir()
        (draft.folder / "sub" / "a.txt").write_text(text)
    assert draft.ref is not None
    return draft.ref


def test_published_artifact_is_found_and_opened(tmp_path: Path) -> None:
    ref = publish(ArtifactStore(tmp_path))
    fresh = ArtifactStore(tmp_path)
    assert fresh.find("sft", "f1") == ref
    assert (fresh.open(ref) / "sub" / "a.txt").read_text() == "hello"


def test_others_may_read_what_a_library_wrote_for_its_owner_alone(tmp_path: Path) -> None:
    store, before = ArtifactStore(tmp_path), os.umask(0o027)
    try:
        with store.publish("sft", "f1", {}, {}) as draft:
            for name, mode in (("model.safetensors", 0o600), ("run.sh", 0o700)):
                (draft.folder / name).write_text(name)
                (draft.folder / name).chmod(mode)
    finally:
        os.umask(before)
    assert draft.ref is not None
    folder = store.open(draft.ref)
    assert [(folder / name).stat().st_mode & 0o777 for name in ("model.safetensors", "run.sh")] == [0o640, 0o740]


def test_digest_is_content_alone(tmp_path: Path) -> None:
    first = publish(ArtifactStore(tmp_path / "one"))
    second = publish(ArtifactStore(tmp_path / "two"), fingerprint="f2")
    assert first.digest == second.digest
    assert publish(ArtifactStore(tmp_path / "three"), "hullo").digest != first.digest
    assert content_digest("sft", {"a": "1"}) != content_digest("rm", {"a": "1"})


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(RuntimeError), store.publish("sft", "f1", {}, {}) as draft:
        (draft.folder / "a.txt").write_text("half")
        raise RuntimeError
    assert store.find("sft", "f1") is None
    assert not any((tmp_path / "drafts").iterdir())
    assert not (tmp_path / "sft").exists()


def test_kill_while_writing_leaves_no_artifact(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom tasks.engine.artifacts import ArtifactStore\n"
        f"with ArtifactStore({str(tmp_path)!r}).publish('sft', 'f1', {{}}, {{}}) as draft:\n"
        "    (draft.folder / 'a.txt').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    store = ArtifactStore(tmp_path)
    assert store.find("sft", "f1") is None
    publish(store)
    assert store.find("sft", "f1") is not None


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damage_is_named_and_never_handed_out(tmp_path: Path, damage: str) -> None:
    ref = publish(ArtifactStore(tmp_path))
    path = tmp_path / "sft" / "f1" / "sub" / "a.txt"
    path.write_text("jello") if damage == "changed" else path.unlink()
    store = ArtifactStore(tmp_path)
    with pytest.raises(ArtifactError, match=r"sft/f1.*sub/a\.txt.*run the same command again"):
        store.open(ref)


def test_truncated_file_is_not_found(tmp_path: Path) -> None:
    publish(ArtifactStore(tmp_path))
    (tmp_path / "sft" / "f1" / "sub" / "a.txt").write_text("hell")
    assert ArtifactStore(tmp_path).find("sft", "f1") is None


def test_another_artifact_in_its_place_is_refused(tmp_path: Path) -> None:
    ref = publish(ArtifactStore(tmp_path))
    with pytest.raises(ArtifactError, match="holds digest"):
        ArtifactStore(tmp_path).open(ref.model_copy(update={"digest": "0" * 64}))


def test_republishing_replaces_a_damaged_artifact(tmp_path: Path) -> None:
    ref = publish(ArtifactStore(tmp_path))
    (tmp_path / "sft" / "f1" / "sub" / "a.txt").unlink()
    assert publish(ArtifactStore(tmp_path)) == ref
    assert ArtifactStore(tmp_path).damage("sft", "f1") is None


def test_lock_is_free_after_its_holder_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom tasks.engine.artifacts import ArtifactStore\n"
        f"with ArtifactStore({str(tmp_path)!r}).lock('sft', 'f1'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with ArtifactStore(tmp_path).lock("sft", "f1"):
        pass


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "no permission")]
)
def test_system_refusals_become_one_sentence(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(ArtifactError, match=words), readable_os_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="a file stands where a folder is needed"):
        ArtifactStore(tmp_path / "file")


def test_json_bytes_do_not_depend_on_key_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1, "b": [2]})
    write_json(tmp_path / "b.json", {"b": [2], "a": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_damage_of_equal_size_is_found_on_opening_and_then_forgotten(tmp_path: Path) -> None:
    ref = publish(ArtifactStore(tmp_path))
    (tmp_path / "sft" / "f1" / "sub" / "a.txt").write_text("jello")
    store = ArtifactStore(tmp_path)
    assert store.find("sft", "f1") == ref
    with pytest.raises(ArtifactError):
        store.open(ref)
    assert ArtifactStore(tmp_path).find("sft", "f1") is None


def test_a_metric_that_is_no_number_does_not_hide_the_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.publish("sft", "f1", {}, {}) as draft:
        draft.metrics = {"loss": 1.5, "perplexity": float("inf")}
    manifest = store.manifest("sft", "f1")
    assert manifest is not None and manifest.metrics == {"loss": 1.5}


def test_drafts_of_killed_processes_are_cleared_away(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    (tmp_path / "drafts" / "sft-f1-0badcafe").mkdir()
    publish(store)
    assert not any((tmp_path / "drafts").iterdir())


@pytest.mark.parametrize("name", ["policy/chat_template.jinja", "extra.txt", "sub/manifest.json"])
def test_a_file_that_was_not_published_is_named_and_nothing_is_lost(tmp_path: Path, name: str) -> None:
    ref = publish(ArtifactStore(tmp_path))
    stranger = tmp_path / "sft" / "f1" / name
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("{{ something else }}")
    store = ArtifactStore(tmp_path)
    assert list(store.damages("sft", "f1")) == [f"file {name} was not published with it"]
    for use in (lambda: store.open(ref), lambda: store.sound("sft", "f1")):
        with pytest.raises(ArtifactError, match=rf"sft/f1 .*found {name}, which was not published.*move it elsewhere"):
            use()
    stranger.unlink()
    assert store.sound("sft", "f1") == ref and store.open(ref).is_dir()


def test_a_nested_manifest_is_a_file_like_any_other(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.publish("sft", "f1", {}, {}) as draft:
        (draft.folder / "sub").mkdir()
        (draft.folder / "sub" / "manifest.json").write_text("{}")
    assert store.sound("sft", "f1") is not None
    (tmp_path / "sft" / "f1" / "sub" / "manifest.json").write_text("[]")
    assert store.sound("sft", "f1") is None
