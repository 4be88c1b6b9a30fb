"""What the doctor reads of this machine."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.ask.doctor import machine

GIB = 2**30


class Mount(NamedTuple):
    mountpoint: str
    fstype: str


class Memory(NamedTuple):
    total: int = 8 * GIB
    available: int = 5 * GIB


@pytest.mark.parametrize(("folder", "kind"), [("/home/me/x", "nfs4"), ("/homes/x", "ext4"), ("/data/x", "xfs")])
def test_the_longest_and_latest_mount_counts(monkeypatch: pytest.MonkeyPatch, folder: str, kind: str) -> None:
    mounts = [Mount("/data", "cifs"), Mount("/home", "nfs4"), Mount("/", "ext4"), Mount("/data", "xfs")]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: mounts)
    assert machine._file_system_of(Path(folder)) == kind


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        (None, None, (8 * GIB, 5 * GIB)),  # "max", or no control group
        (4 * GIB, GIB, (4 * GIB, 3 * GIB)),
        (7 * GIB, GIB, (7 * GIB, 5 * GIB)),  # other containers use the rest
        (16 * GIB, GIB, (8 * GIB, 5 * GIB)),  # more than there is
    ],
)
def test_a_container_has_what_it_is_given(
    monkeypatch: pytest.MonkeyPatch, limit: Any, used: Any, expected: Any
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", Memory)
    monkeypatch.setattr(machine, "_number", lambda name: {"memory.max": limit, "memory.current": used}[name])
    assert machine.device_memory("cpu") == expected
