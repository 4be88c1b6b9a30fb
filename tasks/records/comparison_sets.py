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

from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from tasks.engine.errors import DataError
from tasks.records.records import Comparison, Prompt

SET_NAMES = ("train", "valid", "valid_heldout_labelers", "valid_gold")

_FEATURES = Features(
    {
        "prompt_id": Value("string"),
        "owner_id": Value("string"),
        "text": Value("string"),
        "kind": Value("string"),
        "metadata": Value("string"),  # JSON: a struct would give every prompt every other prompt's keys
        "completions": List(Value("string")),
        "ranks": List(Value("int32")),
        "labeler_id": Value("string"),
        "source_policy": List(Value("string")),
        "finished": List(Value("bool")),
        "quality": List(Value("int32")),
        "flags": List(List(Value("string"))),
        "seconds": Value("float64"),
    }
)


def write_comparisons(folder: Path, sets: Mapping[str, Sequence[Comparison]]) -> None:
    """Write ``<folder>/<name>.arrow`` for each named set that holds anything; equal comparisons give equal
    bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, comparisons in sets.items():
        if name not in SET_NAMES:
            raise DataError(f"comparison set {name!r}: expected one of {', '.join(SET_NAMES)}")
        if comparisons:
            dataset = Dataset.from_list([_row(comparison) for comparison in comparisons], features=_FEATURES)
            with ArrowWriter(features=_FEATURES, path=str(folder / f"{name}.arrow")) as writer:
                writer.write_table(dataset.data.table)
                writer.finalize()


def read_comparisons(folder: Path) -> dict[str, list[Comparison]]:
    """Every set in the folder.

    Raises:
        DataError: when the folder holds no training set.
    """
    sets = {}
    for name in SET_NAMES:
        path = folder / f"{name}.arrow"
        if path.is_file():
            sets[name] = [_comparison(row) for row in Dataset.from_file(str(path), in_memory=True)]
    if "train" not in sets:
        raise DataError(f"{folder}: found no train.arrow, expected one; run the comparisons stage again")
    return sets


def _row(comparison: Comparison) -> dict[str, Any]:
    row = comparison.model_dump(exclude={"prompt"}) | comparison.prompt.model_dump()
    return row | {"metadata": json.dumps(comparison.prompt.metadata, sort_keys=True)}


def _comparison(row: Mapping[str, Any]) -> Comparison:
    fields = dict(row)
    prompt = {name: fields.pop(name) for name in Prompt.model_fields}
    prompt["metadata"] = json.loads(prompt["metadata"])
    return Comparison(prompt=Prompt(**prompt), **fields)


def take_part(comparisons: Sequence[Comparison], part: Literal["all", "first_half", "second_half"]) -> list[Comparison]:
    """All comparisons, or those of the prompts that fall into one half.

    The half is decided by a hash of the prompt's text, so all rankings of a prompt, by whichever labeler, lie in one half.
    """
    if part == "all":
        return list(comparisons)
    wanted = 0 if part == "first_half" else 1
    return [comparison for comparison in comparisons if _half(comparison.prompt.text) == wanted]


def _half(text: str) -> int:
    return hashlib.sha256(f"half of the comparisons {text}".encode()).digest()[0] % 2
