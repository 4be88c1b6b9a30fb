"""What the operating system refuses, in a sentence whose remedy moves what was refused."""

import errno
from pathlib import Path

import pytest

from tasks.engine.artifacts import ArtifactStore
from tasks.engine.errors import ArtifactError
from tasks.engine.os_errors import readable_os_errors


def sentence(place: Path, number: int = errno.EACCES) -> str:
    with pytest.raises(ArtifactError) as refused, readable_os_errors(place):
        raise OSError(number, "refused", str(place / "file"))
    return str(refused.value)


def test_the_remedy_moves_the_folder_that_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tracking.root leaves Prefect's database where it is: below PLUMBLINE_HOME."""
    home, store = tmp_path / "home", tmp_path / "elsewhere"
    monkeypatch.setenv("PLUMBLINE_HOME", str(home))
    for place in (home, home / "artifacts"):
        assert "choose another folder with the environment variable PLUMBLINE_HOME" in sentence(place)
    assert "choose another folder with tracking.root=..." in sentence(store)
    monkeypatch.delenv("PLUMBLINE_HOME")
    assert "choose another folder with tracking.root=..." in sentence(store)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert "a name in its path is too long" in sentence(tmp_path, errno.ENAMETOOLONG)


@pytest.mark.parametrize("home", ["/proc", "/proc/nowhere"])
def test_a_place_where_no_folder_can_be(home: str) -> None:
    with pytest.raises(
        ArtifactError, match=rf"^{home}/store cannot be written: No such file or directory; choose another"
    ):
        ArtifactStore(f"{home}/store")
