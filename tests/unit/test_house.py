"""What keeps the house easy to find one's way in."""

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
def test_letters_of_equation_2_are_in_the_rooms_that_compute_it(letter: str) -> None:
    """DPO optimises the same objective: its beta is the same price. No other room has a variable of that name."""
    rooms = {path.relative_to(ROOT).parts[1] for path in SOURCES if _assigns(path, letter)}
    assert rooms & {"ppo"} and rooms <= {"ppo", "dpo"} | {"study"}


def _assigns(path: Path, letter: str) -> bool:
    return (
        re.search(rf"^\s*(?:self\.)?{letter}\b(?:: \w+)? ?[=,]|\b{letter}: float", path.read_text("utf-8"), re.M)
        is not None
    )


def test_a_file_is_read_in_one_sitting() -> None:
    assert not [path.name for path in SOURCES if len(path.read_text(encoding="utf-8").splitlines()) > 350]
