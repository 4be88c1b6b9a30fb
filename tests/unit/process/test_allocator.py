"""Processes that stages run in allocate with tcmalloc where it is there; a library that every system has stands for it here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.process import allocator
from flows.process.allocator import preloaded, tcmalloc

STAND_IN = "libBrokenLocale.so.1"
"""Part of the C library that nobody else loads."""
LOOK = "from pathlib import Path; print('libBrokenLocale' in Path('/proc/self/maps').read_text())"


def loads() -> str:
    return subprocess.run([sys.executable, "-S", "-c", LOOK], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)


def test_what_is_started_inside_has_it_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "preloaded", lambda: STAND_IN)
    assert loads() == "False"
    with tcmalloc():
        assert loads() == "True"
    assert loads() == "False" and "LD_PRELOAD" not in os.environ


def test_an_allocator_of_ones_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "preloaded", lambda: STAND_IN)
    for own, expected in (("libjemalloc.so.2", "libjemalloc.so.2"), ("libm.so.6", f"libm.so.6 {STAND_IN}")):
        monkeypatch.setenv("LD_PRELOAD", own)
        with tcmalloc():
            assert os.environ["LD_PRELOAD"] == expected
        assert os.environ["LD_PRELOAD"] == own


def test_without_it_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda _: None)
    assert preloaded() is None
    with tcmalloc():
        assert "LD_PRELOAD" not in os.environ


def test_it_is_found_by_the_names_that_the_linker_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", {"tcmalloc": "libtcmalloc.so.4"}.get)
    assert preloaded() == "libtcmalloc.so.4"


PROGRAM = """
import multiprocessing
import sys
from pathlib import Path
from flows.process import allocator, runners

def look():
    Path(sys.argv[1]).write_text(Path("/proc/self/maps").read_text())

if __name__ == "__main__":
    allocator.preloaded = lambda: sys.argv[2]
    runners.warm_up()
    process = multiprocessing.get_context("forkserver").Process(target=look)
    process.start()
    process.join()
    print(sys.argv[2] in Path("/proc/self/maps").read_text())
"""


def test_stages_run_with_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "maps"), STAND_IN],
        env=os.environ | {"PYTHONPATH": str(Path(allocator.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )
    assert done.stdout.split() == ["False"]
    assert STAND_IN in (tmp_path / "maps").read_text()
