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
