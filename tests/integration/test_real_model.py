"""The whole miniature road on a model folder as people bring it: no pad token, a tied head, a short context."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.tiny_folder import data_folder, model_folder


@pytest.mark.parametrize(("experiment", "stages"), [("own_data", 15), ("small_model", 13)])
def test_own_model_and_own_data_take_one_command_and_no_override(tmp_path: Path, experiment: str, stages: int) -> None:
    model = model_folder(tmp_path / "model", extra_rows=5)
    data = data_folder(tmp_path / "data")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "flows.rlhf", f"experiment={experiment}", "scale=miniature"),
            *(f"data_prep.folder={data}", f"model.name_or_path={model}", f"tracking.root={tmp_path / 'root'}"),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "PLUMBLINE_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    assert f"{stages} of {stages} stages ran" in done.stdout
    assert "Traceback" not in done.stderr + done.stdout
