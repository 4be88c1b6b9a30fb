"""Named sets of comparisons in one folder, as Arrow files: written by the comparisons stage, read by the reward
model's.

``train`` is what the reward model learns from. ``valid`` is other prompts, ranked by labelers of the training
panel; ``valid_heldout_labelers`` the same prompts ranked by labelers who never rank training prompts;
``valid_gold`` the same prompts in the sandbox's true order. A set that does not apply is absent.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from tasks.engine.errors import DataError
from tasks.records.data import columns_of, read_records
from tasks.records.records import Comparison

SET_NAMES = ("train", "valid", "valid_heldout_labelers", "valid_gold")


def write_comparisons(folder: Path, sets: Mapping[str, Sequence[Comparison]]) -> None:
    """Write ``<folder>/<name>.arrow`` for each named set that holds anything; equal comparisons give equal
    bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, comparisons in sets.items():
        if name not in SET_NAMES:
            raise DataError(f"comparison set {name!r}: expected one of {', '.join(SET_NAMES)}")
        if comparisons:
            dataset = Dataset.from_list(
                [_row(comparison) for comparison in comparisons], features=columns_of(Comparison)
            )
            with ArrowWriter(features=columns_of(Comparison), path=str(folder / f"{name}.arrow")) as writer:
                writer.write_table(dataset.data.table)
                writer.finalize()


def read_comparisons(folder: Path) -> dict[str, Sequence[Comparison]]:
    """Every set in the folder; its rows stay in their file, and are read when they are asked for.

    Raises:
        DataError: when the folder holds no training set.
    """
    sets: dict[str, Sequence[Comparison]] = {}
    for name in SET_NAMES:
        if found := read_records(folder / f"{name}.arrow", Comparison):
            sets[name] = found
    if "train" not in sets:
        raise DataError(f"{folder}: found no train.arrow, expected one; run the comparisons stage again")
    return sets


def _row(comparison: Comparison) -> dict[str, Any]:
    row = comparison.model_dump(exclude={"prompt"}) | comparison.prompt.model_dump()
    return row | {"metadata": json.dumps(comparison.prompt.metadata, sort_keys=True)}


def take_part(
    comparisons: Sequence[Comparison], part: Literal["all", "first_half", "second_half"]
) -> Sequence[Comparison]:
    """All comparisons, or those of the prompts that fall into one half.

    The half is decided by a hash of the prompt's text, so all rankings of a prompt, by whichever labeler, lie in one half.
    """
    if part == "all":
        return comparisons
    wanted = 0 if part == "first_half" else 1
    return [comparison for comparison in comparisons if _half(comparison.prompt.text) == wanted]


def _half(text: str) -> int:
    return hashlib.sha256(f"half of the comparisons {text}".encode()).digest()[0] % 2
