"""Functions of the user's own: what they return is checked, and what is wrong is one sentence."""

import sys
from pathlib import Path

import pytest

from tasks.engine.errors import ConfigError, RewardError
from tasks.rewards.config import FunctionPart
from tasks.rewards.function import FunctionReward, load_function

ARGUMENTS = (["one", "two"], ["a b", "c"])


def written(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(f"import math\n\n\ndef score(prompts, responses):\n    {body}\n", encoding="utf-8")
    return f"{path}:score"


def test_a_function_of_a_file_and_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = written(tmp_path, "return [len(p) + len(r.split()) for p, r in zip(prompts, responses)]")
    assert FunctionReward("words", address).score(*ARGUMENTS) == [5.0, 4.0]
    (tmp_path / "rewards_of_mine.py").write_text("def score(prompts, responses):\n    return [1.5, 2]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert FunctionReward("half", "rewards_of_mine:score").score(*ARGUMENTS) == [1.5, 2.0]
    sys.modules.pop("rewards_of_mine")


def test_arrays_are_lists_of_numbers(tmp_path: Path) -> None:
    address = written(tmp_path, "import numpy; return numpy.float32([0.5, 1])")
    assert FunctionReward("array", address).score(*ARGUMENTS) == [0.5, 1.0]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return [1.0]", "returned 1 scores, expected .* one for each response; return one for each"),
        ("return [1.0, math.nan]", "returned nan at place 1"),
        ("return [math.inf, 0.0]", "returned inf at place 0"),
        ("return ['good', 0.0]", "returned a str at place 0"),
        ("return [True, 0.0]", "returned a bool at place 0"),
        ("return [None, 0.0]", "returned nothing at place 0"),
        ("return 3.0", "returned a float, expected a list"),
        ("return {1: 2}", "returned a dict, expected a list"),
        ("pass", "returned nothing, expected a list"),
        ("raise SystemExit('done')", r"raised SystemExit: done \(line 5 of .*mine\.py\)"),
        ("return {}['x']", r"raised KeyError: 'x' \(line 5 of .*mine\.py\)"),
    ],
)
def test_what_it_returns_is_checked(body: str, found: str, tmp_path: Path) -> None:
    reward = FunctionReward("letters", written(tmp_path, body))
    with pytest.raises(RewardError, match=rf"^ppo\.rewards: part letters: .*mine\.py:score {found}"):
        reward.score(*ARGUMENTS)


def test_what_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finds no module no_such_module_here"):
        load_function("no_such_module_here:score")
    with pytest.raises(ConfigError, match=r"finds no module no_such\.module"):
        load_function("no_such.module:score")
    with pytest.raises(ConfigError, match="found no file"):
        load_function(f"{tmp_path}/none.py:score")
    address = written(tmp_path, "return []")
    with pytest.raises(ConfigError, match=r"has no function scores, .*its functions: score"):
        load_function(f"{address}s")
    (tmp_path / "one.py").write_text("def score(responses):\n    return []\n")
    with pytest.raises(ConfigError, match=r"cannot be called with \(prompts, responses\)"):
        load_function(f"{tmp_path}/one.py:score")
    for manner in ("async def score(p, r):\n    return []\n", "def score(p, r):\n    yield 1.0\n"):
        (tmp_path / "later.py").write_text(manner)
        with pytest.raises(
            ConfigError, match=r"cannot be called with .* \(it (is async|yields), .*expected a plain function"
        ):
            load_function(f"{tmp_path}/later.py:score")
    (tmp_path / "broken.py").write_text("import nothing_of_the_kind\n")
    with pytest.raises(ConfigError, match=r"importing .* raised ModuleNotFoundError"):
        load_function(f"{tmp_path}/broken.py:score")
    (tmp_path / "script.py").write_text("import sys\n\ndef score(p, r):\n    return []\n\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match=r"importing .*script\.py raised SystemExit: 0, expected a module that"):
        load_function(f"{tmp_path}/script.py:score")


def test_the_key_is_the_source_not_the_place(tmp_path: Path) -> None:
    def key(folder: str, body: str) -> object:
        (tmp_path / folder).mkdir(exist_ok=True)
        address = written(tmp_path / folder, body)
        part = FunctionPart.model_validate({"name": "f", "kind": "function", "weight": 1.0, "function": address})
        return part.fingerprint_fields()

    assert key("one", "return [1.0]") == key("two", "return [1.0]")
    assert key("one", "return [1.0]") != key("two", "return [2.0]")
