"""The table in docs/points.md says what the tests' marks say, and no golden case is left out."""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
POINTS = range(1, 66)


def marked(tests: Path) -> dict[int, set[str]]:
    """Point -> its tests, as ``folder/file.py::test_name``; read from the source, nothing is imported."""
    found: dict[int, set[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.point":
                    name = f"{path.relative_to(tests).as_posix()}::{node.name}"  # type: ignore[attr-defined]
                    for argument in mark.args:
                        found.setdefault(ast.literal_eval(argument), set()).add(name)
    return found


def table(text: str) -> dict[int, tuple[set[str], str]]:
    """Point -> its tests and its source, from Markdown."""
    rows = re.findall(r"^\| (\d+) \| .+? \| (.+?) \| `(.+?)` \|$", text, flags=re.M)
    assert len(rows) == len({number for number, _, _ in rows}), "a point stands twice in the table"
    return {int(number): (set(re.findall(r"`(.+?)`", tests)), source) for number, tests, source in rows}


def test_the_table_says_what_the_marks_say() -> None:
    marks, rows = marked(ROOT / "tests"), table((ROOT / "docs" / "points.md").read_text())
    assert sorted(marks) == list(POINTS)
    assert sorted(rows) == list(POINTS)
    for number in POINTS:
        assert rows[number][0] == marks[number], f"point {number}"
        assert (ROOT / "tasks" / rows[number][1]).is_file(), f"point {number}: {rows[number][1]}"


def test_every_golden_case_is_read_by_a_test() -> None:
    cases = json.loads((ROOT / "tests" / "golden" / "golden_vectors.json").read_text())["cases"]
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if path != Path(__file__)]
    tests = "\n".join(path.read_text() for path in files)
    read = set(re.findall(r'"(\w+)"', tests))
    assert len(cases) == 36
    assert set(cases) <= read


def test_a_mark_is_seen_and_a_missing_one_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("@pytest.mark.point(3, 5)\ndef test_this(): ...\ndef test_that(): ...\n")
    assert marked(tmp_path) == {3: {"test_it.py::test_this"}, 5: {"test_it.py::test_this"}}
    assert table("| 3 | holds | `test_it.py::test_this`<br>`b.py::test_b` | `a.py` |\n") == {
        3: ({"test_it.py::test_this", "b.py::test_b"}, "a.py")
    }
