"""The whole miniature road, and a chat with its policy, on a folder of each family with the tokenizer that it really has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.family_folders import FAMILIES, family_folder
from tests.unit.tiny_folder import data_folder

QUICK = ("gpt2", "mistral")
"""In the default tier: byte-level BPE without a chat template, and pieces with byte fallback and one; neither has a pad token."""


@pytest.mark.parametrize(
    "family", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_all_stages_and_a_chat(tmp_path: Path, family: str) -> None:
    model, data = family_folder(family, tmp_path / "model"), data_folder(tmp_path / "data")

    def run(*command: str, typed: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            input=typed,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            env={**os.environ, "PLUMBLINE_HOME": str(tmp_path / "home")},
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
        assert "Traceback" not in done.stderr + done.stdout
        return done.stdout

    root = f"tracking.root={tmp_path / 'root'}"
    road = ("experiment=own_data", "scale=miniature", f"data_prep.folder={data}", f"model.name_or_path={model}", root)
    assert "15 of 15 stages ran" in run("flows.rlhf", *road)
    released = next((tmp_path / "root").rglob("release-*/*/policy"))
    talk = run("flows.chat", f"model={released}", "--tokens", "8", root, typed="what does ann do ?\n/quit\n")
    assert talk.startswith("release-") and talk.count("> ") >= 2, "an answer, and the next prompt"
