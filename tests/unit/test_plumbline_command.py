"""``plumbline NAME ...`` is ``python -m flows.NAME ...``."""

import os
import sys
from pathlib import Path

import pytest

from flows import plumbline as command

FLOWS = Path(command.__file__).parent


def test_every_command_is_replaced_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append([path, *arguments]))
    monkeypatch.setattr(sys, "argv", ["plumbline", "rlhf", "ppo.beta=0.05", "--explain"])
    command.main()
    assert started == [[sys.executable, sys.executable, "-P", "-m", "flows.rlhf", "ppo.beta=0.05", "--explain"]]


def test_every_module_with_a_command_line_is_a_command() -> None:
    runnable = {path.stem for path in FLOWS.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    runnable |= {path.parent.name for path in FLOWS.glob("*/__main__.py")}
    assert set(command.COMMANDS) == runnable - {"plumbline"}


def test_an_unknown_command_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["plumbline", "chatt"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.startswith("error: chatt: no such command, there are rlhf, evaluate")
    assert told.endswith("; did you mean chat?\n")
