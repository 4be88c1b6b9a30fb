"""What keeps the house easy to find one's way in."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for room in ("flows", "tasks", "deployments") for path in sorted((ROOT / room).rglob("*.py"))]


def test_a_class_name_means_one_thing() -> None:
    names = [name for path in SOURCES for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.M)]
    assert len(names) > 300
    assert not [name for name, count in Counter(names).items() if count > 1]


@pytest.mark.parametrize("letter", ["beta", "gamma"])
def test_letters_of_equation_2_are_variables_only_where_it_is_computed(letter: str) -> None:
    """DPO optimises the same objective: its beta is the same price. The study and the card read PPO's configuration."""
    rooms = {path.relative_to(ROOT).parts[1] for path in SOURCES if letter in _variables(path)}
    assert "ppo" in rooms and rooms <= {"ppo", "dpo", "study", "release"}


def _variables(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return arguments | {node.id for node in nodes if isinstance(node, ast.Name)}


def test_a_file_is_read_in_one_sitting() -> None:
    assert not [path.name for path in SOURCES if len(path.read_text(encoding="utf-8").splitlines()) > 350]
