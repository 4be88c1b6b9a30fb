"""Comparison sets on disk."""

from pathlib import Path

import pytest
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from tasks.engine.errors import DataError
from tasks.records.comparison_sets import read_comparisons, write_comparisons
from tasks.records.records import Comparison, Prompt


def comparisons() -> list[Comparison]:
    prompt = Prompt(
        prompt_id="p", owner_id="o", text="q : red ? a :", kind="chat", metadata={"n": 2, "keys": ["a", {"b": None}]}
    )
    bare = Prompt(prompt_id="q", owner_id="o", text="größe 東京")
    return [
        Comparison(
            prompt=prompt,
            completions=["x", "", "y y"],
            ranks=[1, 2, 2],
            labeler_id="ann",
            source_policy=["sft"] * 3,
            finished=[True, False, True],
            quality=[7, None, 2],
            flags=[["opinion"], [], ["opinion", "violent"]],
            seconds=31.25,
        ),
        Comparison(prompt=bare, completions=["x", "y"], ranks=[2, 1], labeler_id="bob"),
    ]


def test_round_trip(tmp_path: Path) -> None:
    write_comparisons(tmp_path, {"train": comparisons(), "valid": comparisons()[:1], "valid_gold": []})
    assert read_comparisons(tmp_path) == {"train": comparisons(), "valid": comparisons()[:1]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.arrow", "valid.arrow"]


def test_equal_comparisons_give_equal_bytes(tmp_path: Path) -> None:
    first, second = comparisons()
    turned = dict(reversed(first.prompt.metadata.items()))
    same = first.model_copy(update={"prompt": first.prompt.model_copy(update={"metadata": turned})})
    assert same == first
    write_comparisons(tmp_path / "one", {"train": [first, second]})
    write_comparisons(tmp_path / "two", {"train": [same, second]})
    assert (tmp_path / "one" / "train.arrow").read_bytes() == (tmp_path / "two" / "train.arrow").read_bytes()


def test_unknown_set_and_missing_training_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'test': expected one of train, valid"):
        write_comparisons(tmp_path, {"test": comparisons()})
    with pytest.raises(DataError, match=r"found no train\.arrow"):
        read_comparisons(tmp_path)


def test_files_from_before_labelers_marked_anything_are_read(tmp_path: Path) -> None:
    write_comparisons(tmp_path, {"train": comparisons()})
    old = Dataset.from_file(str(tmp_path / "train.arrow"), in_memory=True)
    old = old.remove_columns(["quality", "flags", "seconds"])
    with ArrowWriter(features=old.features, path=str(tmp_path / "train.arrow")) as writer:
        writer.write_table(old.data.table)
        writer.finalize()
    unmarked = comparisons()[0].model_copy(update={"quality": [], "flags": [], "seconds": None})
    assert read_comparisons(tmp_path) == {"train": [unmarked, comparisons()[1]]}
