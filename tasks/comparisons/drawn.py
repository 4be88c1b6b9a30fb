"""Drawn responses in a folder: one file of JSON lines a split."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.comparisons.sample import Candidates
from tasks.records.json_lines import json_lines
from tasks.records.records import Prompt


def write_drawn(folder: Path, drawn: Mapping[str, Sequence[Candidates]]) -> None:
    """Equal responses give equal bytes."""
    for split, candidates in drawn.items():
        rows = [{**one._asdict(), "prompt": one.prompt.model_dump()} for one in candidates]
        text = "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def read_drawn(folder: Path) -> dict[str, list[Candidates]]:
    """What ``write_drawn`` wrote."""
    return {
        path.stem: [Candidates(**{**row, "prompt": Prompt(**row["prompt"])}) for _, row in json_lines(path, path.name)]
        for path in (folder / "train.jsonl", folder / "valid.jsonl")
    }
