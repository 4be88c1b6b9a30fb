"""Text is read and written as UTF-8 whatever the locale: no call leaves the encoding to it."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def left_to_the_locale(source: str) -> list[int]:
    """Lines with a call that opens text, or talks to another program in text, and names no encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in keywords or None in keywords:
            continue
        if name == "read_text":
            text = not node.args
        elif name == "write_text":
            text = len(node.args) == 1
        elif name == "open":
            text = _opens_text(node, keywords)
        else:
            text = "text" in keywords and name in ("run", "Popen", "check_output")
        if text:
            found.append(node.lineno)
    return found


def _opens_text(node: ast.Call, keywords: dict[str | None, ast.expr]) -> bool:
    place = 0 if isinstance(node.func, ast.Attribute) else 1  # Path.open(mode), open(path, mode)
    mode = keywords.get("mode", node.args[place] if len(node.args) > place else None)
    if mode is None:
        return place == 1 or not node.args
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and "b" not in mode.value and place == 1


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("a.read_text()\nb.read_text(encoding='utf-8')", [1]),
        ("a.write_text('x')\nb.write_text('x', 'utf-8')\nwrite_text(path, 'x')", [1]),
        ("open('a')\nopen('a', 'w')\nopen('a', 'rb')\nopen('a', encoding='utf-8')", [1, 2]),
        ("a.open()\na.open('rb')\nstore.open(ref)", [1]),
        ("subprocess.run([], text=True)\nsubprocess.run([])", [1]),
    ],
)
def test_the_search_finds_what_it_is_for(source: str, lines: list[int]) -> None:
    assert left_to_the_locale(source) == lines


def test_no_text_is_left_to_the_locale() -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{line}"
        for folder in ("flows", "tasks", "deployments")
        for path in sorted((PROJECT / folder).rglob("*.py"))
        for line in left_to_the_locale(path.read_text(encoding="utf-8"))
    ]
    assert found == []
