"""Functions as labelers: planted ones with known manners."""

import time
from pathlib import Path

import pytest

from tasks.comparisons.labelers.function import FunctionLabeler
from tasks.engine.errors import ConfigError, DataError
from tests.unit.comparisons.labelers.asked import config, item

PLANTED = "tests.unit.comparisons.labelers.planted"
ITEMS = [item("p", "aa", "a", "aa"), item("q", "b", "bbb")]


def labeler(name: str, seconds: float = 5.0) -> FunctionLabeler:
    function = {"name": f"{PLANTED}:{name}", "seconds": seconds}
    return FunctionLabeler(config(labelers=["function"], function=function).function)


def ranks(name: str) -> list[list[int]]:
    found = labeler(name).label(ITEMS)
    return [ranking.ranks for one in ITEMS for ranking in found[one.item_id]]


def test_scores_become_ranks_with_ties() -> None:
    assert ranks("by_length") == [[1, 3, 1], [2, 1]]
    assert ranks("reverse") == [[2, 1, 2], [1, 2]]
    assert ranks("constant") == [[1, 1, 1], [1, 1]]
    ranking = labeler("by_length").label(ITEMS)["train/q"][0]
    assert (ranking.labeler_id, ranking.completions) == (f"function:{PLANTED}:by_length", ["b", "bbb"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("throwing", "prompt train/p: the function failed with RuntimeError: no database; correct it"),
        ("leaving", "prompt train/p: the function failed with SystemExit: 3; correct it"),
        ("too_few", r"found \[1.0, 1.0\], expected a list of 3 numbers, one for each response"),
        ("a_word", "found 'goo', expected a list of 3 numbers"),
        ("no_number", r"found \[nan, nan, nan\], expected finite numbers"),
    ],
)
def test_what_is_no_ranking_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labeler(name).label(ITEMS)


def test_a_call_that_takes_too_long_ends_the_stage_and_is_not_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match=r"found no answer after 0\.1 seconds"):
        labeler("slow", seconds=0.1).label(ITEMS)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "found no function 'nobody'"),
        ("NOT_A_FUNCTION", "found no function 'NOT_A_FUNCTION'"),
        ("of_a_prompt", r"of_a_prompt cannot be called with \(prompt, responses\) \(too many positional arguments\)"),
        ("later", r"later cannot be called with .* \(it is async, "),
    ],
)
def test_a_function_that_is_not_there_is_said_before_anything_is_sampled(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        labeler(name).check()


def test_a_module_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = {"name": "no_such_module:f"}
    with pytest.raises(ConfigError, match="no_such_module cannot be imported"):
        FunctionLabeler(config(labelers=["function"], function=function).function).check()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_script_that_leaves.py").write_text("raise SystemExit(3)")
    function = {"name": "a_script_that_leaves:f"}
    with pytest.raises(ConfigError, match=r"a_script_that_leaves cannot be imported \(SystemExit: 3\)"):
        FunctionLabeler(config(labelers=["function"], function=function).function).check()
    with pytest.raises(ValueError, match=r"expected package\.module:function"):
        config(labelers=["function"], function={"name": "just_a_word"})


def test_the_key_knows_the_functions_source() -> None:
    here, there = (
        config(labelers=["function"], function={"name": f"{module}:by_length"}).fingerprint_fields()["function"][
            "source"
        ]
        for module in (PLANTED, "tests.unit.comparisons.labelers.asked")
    )
    assert len(here) == 64 and here != there
