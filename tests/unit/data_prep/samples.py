"""Small folders of JSONL files, and the real configuration files pointed at them."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.data_prep.config import DataPrepConfig, FilesConfig, HubRole, MinimumRows, Role
from tasks.data_prep.sources.folder import folder_rows
from tasks.data_prep.sources.formats.table import read_rows
from tasks.data_prep.sources.hub import hub_rows
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.sources.rows import Row
from tasks.engine.config import ModelConfig
from tasks.language.plain_layout import Layout
from tests.shipped import CONF, shipped


def values(name: str, **changes: Any) -> dict[str, Any]:
    loaded = shipped("data_prep", name)
    assert not changes.keys() - loaded.keys()
    return loaded | {"seed": 3} | changes


def own_data(
    folder: Path, *, files: Mapping[str, Any] | None = None, minimum: int = 0, **changes: Any
) -> DataPrepConfig:
    """``conf/data_prep/own_data.yaml`` for a small folder: a quarter of the owners validate, every role is optional."""
    loaded = values("own_data", folder=str(folder), validation_fraction=0.25, test_fraction=0.2, **changes)
    loaded["files"] |= dict(files or {})
    if "minimum_rows" not in changes:
        loaded["minimum_rows"] = dict.fromkeys(loaded["minimum_rows"], minimum)
    return DataPrepConfig(**loaded)


def model(kind: str = "word_level", vocab_size: int = 400) -> ModelConfig:
    loaded = yaml.safe_load((CONF / "model" / "sandbox.yaml").read_text())
    return ModelConfig(**loaded | {"tokenizer": {"kind": kind, "vocab_size": vocab_size}})


def write(folder: Path, files: Mapping[str, Sequence[Any]]) -> Path:
    """JSON objects, or lines as they are, into files below ``folder``."""
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


def question(number: int) -> str:
    """Prompts that share no long beginning."""
    return f"{number} is a number , tell me about {number} please"


def everything(folder: Path, count: int = 40) -> Path:
    """A folder with every role; prompts of different roles differ."""
    return write(
        folder,
        {
            "demonstrations.jsonl": [
                {"prompt": question(i), "response": f"it is {i} .", "labeler": "l1", "kind": "open_qa"}
                for i in range(count)
            ],
            "rankings.jsonl.gz": [
                {"prompt": question(1000 + i), "completions": ["a", "b", "c"], "ranks": [1, 2, 2], "labeler": "l2"}
                for i in range(count)
            ],
            "rl_prompts.jsonl": [{"prompt": question(2000 + i)} for i in range(count)],
            "pretrain.jsonl": [{"text": f"text number {i} about it", "source": "book"} for i in range(count)],
            "test_prompts.jsonl": [{"prompt": question(3000 + i)} for i in range(5)],
            "benchmarks/piqa.jsonl": [{"query": "how ?", "choices": ["so", "not so"], "gold": 1}],
            "benchmarks/toxicity_prompts.jsonl": [{"prompt": "go away"}],
        },
    )


def records_of(rows: Callable[[SourceRecords], Iterable[tuple[str, Iterable[Row]]]]) -> SourceRecords:
    """Everything that a source yields, as records in memory."""
    records = SourceRecords()
    for role, found in rows(records):
        read_rows(role, found, records)
    return records


def read_folder(folder: str, files: FilesConfig, minimum: MinimumRows, layout: Layout) -> SourceRecords:
    return records_of(lambda into: folder_rows(folder, files, minimum, layout, into))


def read_hub(hub: Mapping[Role, HubRole], minimum: MinimumRows, layout: Layout) -> SourceRecords:
    return records_of(lambda into: hub_rows(hub, minimum, layout, into))
