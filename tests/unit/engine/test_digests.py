"""A process reads a file once, and never trusts what it remembers of a file that changed."""

import hashlib
import os
from pathlib import Path

import pytest

from tasks.engine import digests
from tasks.engine.artifacts import ArtifactStore
from tasks.engine.digests import digest_if_changed
from tasks.engine.inputs import folder_fields


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(digests, "file_digest", counted)
    monkeypatch.setattr(digests, "_known", {})
    monkeypatch.setattr(digests, "_notes", None)
    return names


def test_a_file_is_read_once_under_every_name(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MOMENT", 0)
    store = ArtifactStore(tmp_path / "store")
    with store.publish("sft", "f1", {}, {}) as draft:
        (draft.folder / "weights").write_bytes(b"many")
    assert draft.ref is not None and read == ["weights"]
    for _ in range(2):  # each stage has a store of its own
        folder = ArtifactStore(tmp_path / "store").open(draft.ref)
    assert store.sound("sft", "f1") == draft.ref
    assert folder_fields(str(folder))["weights"] == hashlib.sha256(b"many").hexdigest()
    assert read.count("weights") == 1


@pytest.mark.parametrize("how", ["written over", "exchanged"])
def test_a_changed_file_of_equal_size_and_age_is_read_again(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(digests, "MOMENT", 0)
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))
    state = path.stat()
    digest_if_changed(path)
    while True:  # the clock of a file system ticks every few milliseconds
        other = tmp_path / ("a" if how == "written over" else "b")
        other.write_bytes(b"two")
        os.utime(other, ns=(10**18, 10**18))
        other.replace(path)
        if path.stat().st_ctime_ns != state.st_ctime_ns:
            break
    assert digest_if_changed(path) == hashlib.sha256(b"two").hexdigest()
    assert len(read) == 2


def test_what_was_just_written_is_not_remembered(tmp_path: Path, read: list[str]) -> None:
    path = tmp_path / "a"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        assert digest_if_changed(path) == hashlib.sha256(content).hexdigest()
    assert not digests._known and len(read) == 2


def large(path: Path, byte: bytes = b"a") -> Path:
    path.write_bytes(byte * digests.WORTH_A_NOTE)
    return path


def test_the_processes_of_a_run_read_a_large_file_once_and_the_next_run_reads_it_again(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOMENT", 0)
    weights, small = large(tmp_path / "weights"), tmp_path / "small"
    small.write_bytes(b"a")

    def in_a_process_of(run: str) -> str:
        digests._known.clear()
        digests.share_digests(tmp_path / run)
        digest_if_changed(small)
        return digest_if_changed(weights)

    expected = hashlib.sha256(b"a" * digests.WORTH_A_NOTE).hexdigest()
    assert in_a_process_of("one") == in_a_process_of("one") == expected
    assert read.count("weights") == 1 and read.count("small") == 2
    weights.write_bytes(b"b" * digests.WORTH_A_NOTE)  # within the run, by somebody else
    os.utime(weights, ns=(10**18, 10**18))
    assert in_a_process_of("one") == hashlib.sha256(b"b" * digests.WORTH_A_NOTE).hexdigest()
    assert read.count("weights") == 2
    in_a_process_of("two")
    assert read.count("weights") == 3


def test_a_note_that_is_being_written_is_not_believed(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOMENT", 0)
    weights = large(tmp_path / "weights")
    digests.share_digests(tmp_path / "run")
    expected = digest_if_changed(weights)
    (tmp_path / "run" / "digests").write_text((tmp_path / "run" / "digests").read_text()[:-9])
    digests._known.clear()
    assert digest_if_changed(weights) == expected
    assert len(read) == 2


def test_weights_that_only_their_owner_could_read_are_read_once_by_who_publishes_them(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOMENT", 0)
    store = ArtifactStore(tmp_path / "store")
    with store.publish("sft", "f1", {}, {}) as draft:
        large(draft.folder / "weights").chmod(0o600)
    assert draft.ref is not None
    store.open(draft.ref)
    assert read == ["weights"]
