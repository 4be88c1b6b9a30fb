"""What is set before Prefect and MLflow are imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import evaluate
from tasks.engine.errors import ArtifactError
from tasks.engine.os_errors import probe

REFUSED = (
    "{} cannot be written: a file stands where a folder is needed; choose another folder with the environment variable"
)


def test_a_home_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    command = [sys.executable, "-m", "flows.pages", "mlflow"]
    done = subprocess.run(command, env=os.environ | {"PLUMBLINE_HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {REFUSED.format(home)}")


def test_the_evaluation_asks_before_hydra_makes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    monkeypatch.setattr(evaluate.environment, "HOME", home)
    monkeypatch.setenv("PLUMBLINE_HOME", str(home))
    monkeypatch.setattr("sys.argv", ["flows.evaluate", "policy=x"])
    with pytest.raises(SystemExit, match=f"error: {REFUSED.format(home)}"):
        evaluate.command_line()


def test_whatever_the_system_refuses_when_a_folder_is_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_HOME", "/proc/home")
    for folder, moved in (
        ("/proc/home", "the environment variable PLUMBLINE_HOME"),
        ("/proc/store", "tracking.root=..."),
    ):
        with pytest.raises(ArtifactError) as refused:
            probe(Path(folder))
        assert (
            str(refused.value)
            == f"{folder} cannot be written: No such file or directory; choose another folder with {moved}"
        )
