"""A store that machines share: two homes with folders of their own, and one address; S3 is moto's server on this machine."""

import importlib
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.errors import ArtifactError
from tasks.engine.remote import OPTIONS, Remote, StoreAway
from tasks.engine.shared import SharedStore, store_at
from tests.s3 import s3_server
from tests.unit.engine.test_artifacts import publish

PRINT = "0123456789abcdef0123"


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(params=["s3", "file", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = uuid.uuid4().hex
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{name}"
    return f"file://{tmp_path}/shared" if request.param == "file" else f"memory://{name}"


@pytest.fixture
def s3(bucket: str) -> str:
    return f"{bucket}/{uuid.uuid4().hex}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody waits seconds for a server that is not there."""
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setitem(OPTIONS, "s3", {"config_kwargs": {"connect_timeout": 1, "retries": {"max_attempts": 0}}})
    fsspec.filesystem("s3").clear_instance_cache()
    yield
    fsspec.filesystem("s3").clear_instance_cache()


def opened(address: str) -> tuple[Any, str]:
    kind = address.partition("://")[0]
    return fsspec.core.url_to_fs(address, use_listings_cache=False, **({"auto_mkdir": True} if kind == "file" else {}))


def shared_files(address: str) -> dict[str, int]:
    files, root = opened(address)
    return {path.removeprefix(f"{root}/"): facts["size"] for path, facts in files.find(root, detail=True).items()}


def test_one_home_publishes_and_another_finds_opens_and_keeps_it(tmp_path: Path, address: str) -> None:
    one, other = SharedStore(tmp_path / "one", address), SharedStore(tmp_path / "other", address)
    assert other.sound("sft", PRINT) is None and other.artifacts() == []
    ref = publish(one, "hello", PRINT)
    assert other.find("sft", PRINT) == other.sound("sft", PRINT) == ref
    assert other.artifacts() == [("sft", PRINT)] and other.copies() == []
    manifest = other.manifest("sft", PRINT)
    assert (
        manifest is not None and manifest.sizes == {"sub/a.txt": 5} and manifest.depends_on == {"config": {"epochs": 1}}
    )
    assert other.made_at("sft", PRINT) == pytest.approx(one.made_at("sft", PRINT), abs=5)
    assert (other.open(ref) / "sub" / "a.txt").read_text() == "hello"
    assert ArtifactStore(tmp_path / "other").sound("sft", PRINT) == ref  # a copy like any other
    assert not any((tmp_path / "other" / "drafts").iterdir()) and not any((tmp_path / "one" / "unshared").iterdir())


def test_what_is_here_is_not_asked_for_again(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = publish(SharedStore(tmp_path / "one", address), "hello", PRINT)
    other = SharedStore(tmp_path / "other", address)
    other.open(ref)

    def nobody(*_: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(Remote, "_opened", nobody)
    fresh = SharedStore(tmp_path / "other", address)
    assert fresh.find("sft", PRINT) == ref and fresh.manifest("sft", PRINT) is not None
    assert (fresh.open(ref) / "sub" / "a.txt").read_text() == "hello"


def test_no_address_is_a_folder_alone(tmp_path: Path) -> None:
    assert type(store_at(tmp_path, None)) is ArtifactStore


def test_a_shared_file_of_other_bytes_is_found_on_opening_and_the_stage_is_rebuilt(
    tmp_path: Path, address: str
) -> None:
    one, other = SharedStore(tmp_path / "one", address), SharedStore(tmp_path / "other", address)
    ref = publish(one, "hello", PRINT)
    files, root = opened(address)
    (path,) = (path for path in files.find(root) if path.endswith("a.txt"))
    files.pipe_file(path, b"jello")
    assert [words for words in other.audit("sft", PRINT) if "sub/a.txt" in words and "has digest" in words]
    with pytest.raises(
        ArtifactError, match=rf"sft/{PRINT} in {address}.*sub/a\.txt has digest.*run the same command again"
    ):
        other.open(ref)
    assert other.sound("sft", PRINT) is None and not any((tmp_path / "other" / "drafts").iterdir())
    assert publish(other, "hello", PRINT) == ref
    third = SharedStore(tmp_path / "third", address)
    assert (third.open(ref) / "sub" / "a.txt").read_text() == "hello" and list(third.audit("sft", PRINT)) == []


def test_a_shared_file_that_is_gone_is_not_found_and_whoever_has_it_heals_it(tmp_path: Path, address: str) -> None:
    one, other = SharedStore(tmp_path / "one", address), SharedStore(tmp_path / "other", address)
    ref = publish(one, "hello", PRINT)
    files, root = opened(address)
    files.rm_file(next(path for path in files.find(root) if path.endswith("a.txt")))
    assert other.sound("sft", PRINT) is None
    assert one.sound("sft", PRINT) == ref == other.sound("sft", PRINT)


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, address: str) -> None:
    one = SharedStore(tmp_path / "one", address)
    ref = publish(one, "hello", PRINT)
    (one.folder("sft", PRINT) / "sub" / "a.txt").write_text("jello")
    again = SharedStore(tmp_path / "one", address)
    assert again.sound("sft", PRINT) == ref and again.damage("sft", PRINT) is None
    assert (again.open(ref) / "sub" / "a.txt").read_text() == "hello"


def test_of_two_writers_with_other_bytes_the_first_one_wins(tmp_path: Path, address: str) -> None:
    first, second = SharedStore(tmp_path / "one", address), SharedStore(tmp_path / "other", address)
    with second.publish("sft", PRINT, {}, {}) as draft:
        (draft.folder / "a.txt").write_text("second")
        ref = publish(first, "first", PRINT)
    assert draft.ref == ref == SharedStore(tmp_path / "third", address).sound("sft", PRINT)
    assert (second.open(ref) / "sub" / "a.txt").read_text() == "first"
    assert len(shared_files(address)) == 2  # the first one's file and manifest


def test_many_writers_at_once_end_with_one_result(tmp_path: Path, s3: str) -> None:
    refs: list[ArtifactRef | None] = []
    start = threading.Barrier(6)

    def write(number: int) -> None:
        store = SharedStore(tmp_path / str(number), s3)
        with store.publish("sft", PRINT, {}, {}) as draft:
            (draft.folder / "a.txt").write_text(f"writer {number}")
            start.wait()
        refs.append(draft.ref)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refs) == 6 and len(set(refs)) == 1 and refs[0] is not None
    reader = SharedStore(tmp_path / "reader", s3)
    assert reader.sound("sft", PRINT) == refs[0] and reader.open(refs[0]).is_dir() and len(shared_files(s3)) == 2


KILLED = """
import os, signal, sys
from tasks.engine.remote import Remote
from tasks.engine.shared import SharedStore
Remote._create = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with SharedStore(sys.argv[1], sys.argv[2]).publish("sft", sys.argv[3], {}, {}) as draft:
    (draft.folder / "a.txt").write_text("half")
"""


def test_kill_between_files_and_manifest_shows_nothing_and_the_next_run_shares_it(tmp_path: Path, s3: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "one"), s3, PRINT], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [Path(path).name for path in shared_files(s3)] == ["a.txt"]
    other = SharedStore(tmp_path / "other", s3)
    assert other.find("sft", PRINT) is None and other.artifacts() == []
    one = SharedStore(tmp_path / "one", s3)
    assert one.deliver() == "" and not any((tmp_path / "one" / "unshared").iterdir())
    ref = other.find("sft", PRINT)
    assert ref is not None and (other.open(ref) / "a.txt").read_text() == "half"


def test_a_failed_stage_shares_nothing(tmp_path: Path, address: str) -> None:
    store = SharedStore(tmp_path, address)
    with pytest.raises(RuntimeError), store.publish("sft", PRINT, {}, {}) as draft:
        (draft.folder / "a.txt").write_text("half")
        raise RuntimeError
    assert store.artifacts() == [] and store.deliver() == "" and not any((tmp_path / "unshared").iterdir())


@pytest.mark.usefixtures("impatient")
def test_a_store_that_goes_away_loses_nothing(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, server = SharedStore(tmp_path / "one", s3), os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "plumbline"):
        assert store.sound("sft", PRINT) is None
        ref = publish(store, "hello", PRINT)
    assert f"{s3} cannot be used (EndpointConnectionError" in caplog.text and "shared by the next run" in caplog.text
    assert (store.open(ref) / "sub" / "a.txt").read_text() == "hello"  # later stages go on
    assert store.deliver().startswith("1 results in")
    fsspec.filesystem("s3").clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    other = SharedStore(tmp_path / "other", s3)
    assert other.sound("sft", PRINT) is None
    assert SharedStore(tmp_path / "one", s3).deliver() == "" and other.sound("sft", PRINT) == ref


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("wrong", ["bucket", "server", "key"])
def test_an_address_that_cannot_be_used_is_one_sentence_without_secrets(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    if wrong == "server":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    elif wrong == "key":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    store = SharedStore(tmp_path, "s3://no-such-bucket/x" if wrong == "bucket" else s3)
    with pytest.raises(
        StoreAway, match=r"^tracking\.store: s3://[^\n]*AWS_ACCESS_KEY_ID[^\n]*tracking\.store=null[^\n]*$"
    ) as told:
        store.reach()
    assert "not-so-secret" not in str(told.value)


def test_an_address_that_can_be_used_keeps_nothing_of_the_probe(address: str, tmp_path: Path) -> None:
    SharedStore(tmp_path / "home", address).reach()
    assert shared_files(address) == {}


def test_an_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(ArtifactError, match=r"s3://x needs a package.*pip install -c constraints\.txt -e \.\[s3\]"):
        SharedStore(tmp_path, "s3://x").reach()


def test_a_stranger_beside_a_copy_is_refused_before_anything_is_replaced(tmp_path: Path, address: str) -> None:
    store = SharedStore(tmp_path, address)
    ref = publish(store, "hello", PRINT)
    (store.folder("sft", PRINT) / "mine.txt").write_text("my only copy")
    (store.folder("sft", PRINT) / "sub" / "a.txt").write_text("jello")
    with pytest.raises(ArtifactError, match=r"mine\.txt, which was not published"):
        SharedStore(tmp_path, address).open(ref)
    assert (store.folder("sft", PRINT) / "mine.txt").read_text() == "my only copy"


def test_ranks_get_the_store_and_fetch_once(tmp_path: Path, s3: str) -> None:
    ref = publish(SharedStore(tmp_path / "one", s3), "hello", PRINT)
    other = pickle.loads(pickle.dumps(SharedStore(tmp_path / "other", s3)))
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(other.open(ref))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1


def test_a_store_from_before_is_shared_as_it_is_found(tmp_path: Path, address: str) -> None:
    ref = publish(ArtifactStore(tmp_path / "one"), "hello", PRINT)
    assert SharedStore(tmp_path / "one", address).sound("sft", PRINT) == ref
    shutil.rmtree(tmp_path / "one")
    assert SharedStore(tmp_path / "other", address).sound("sft", PRINT) == ref
