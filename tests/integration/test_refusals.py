"""A full disk and a read-only store, by the whole command on a small file system of its own: one sentence, nothing lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [
    sys.executable,
    "-m",
    "flows.rlhf",
    "scale=miniature",
    "runtime.progress=false",
    "runtime.checkpoint_every=1",
]
FULL = "the disk is full; free some space and run the same command again, nothing published was lost"


def mount(*words: str) -> bool:
    return os.getuid() == 0 and subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=2m", "none", str(folder)):
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(root: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PLUMBLINE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    environment["PREFECT_LOCAL_STORAGE_PATH"] = str(home / "prefect" / "records")
    environment.pop("PREFECT_API_URL", None)
    return subprocess.run(
        [*COMMAND, f"tracking.root={root}"], env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def digests(root: Path) -> dict[str, str]:
    manifests = [json.loads(path.read_text()) for path in root.glob("artifacts/*/*/manifest.json")]
    return {f"{item['stage']}/{item['fingerprint']}": item["digest"] for item in manifests}


def complaint(done: "subprocess.CompletedProcess[str]") -> str:
    """The one sentence at the end."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.stderr.rstrip().endswith(line)
    return line


@pytest.mark.slow
@pytest.mark.parametrize("size", ["2m", "3m", "4m"])
def test_a_disk_that_fills_up_is_one_sentence_and_the_same_command_goes_on_with_more_room(
    disk: Path, tmp_path: Path, size: str
) -> None:
    assert mount("-o", f"remount,size={size}", str(disk))
    assert FULL in complaint(run(disk, tmp_path / "home"))
    published = digests(disk)
    assert mount("-o", "remount,size=100m", str(disk))
    done = run(disk, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert len(digests(disk)) == 15 and published.items() <= digests(disk).items()
    assert mount("-o", "remount,ro", str(disk))
    assert "the file system is read-only; choose another folder with tracking.root=..." in complaint(
        run(disk, tmp_path / "home")
    )
    assert len(digests(disk)) == 15


@pytest.mark.slow
def test_a_full_disk_is_named_before_anything_starts(disk: Path, tmp_path: Path) -> None:
    (disk / "other").write_bytes(bytes(1_500_000))
    for root, home in ((disk, tmp_path / "home"), (tmp_path / "results", disk)):
        assert f"{disk} cannot be written: {FULL}" in complaint(run(root, home))
    assert not list(tmp_path.glob("results/artifacts/*/*/manifest.json"))
