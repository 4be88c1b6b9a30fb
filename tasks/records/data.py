"""The data artifact: what data preparation writes and every later stage reads.

::

    <folder>/tokenizer/                     a Hugging Face tokenizer
    <folder>/<role>/<split>.arrow           one Arrow file per role and split (``datasets.Dataset.from_file`` opens it)
    <folder>/audit.json                     what was read, dropped and kept
    <folder>/world.json                     the embedded world, which ``World.read`` opens; absent for data of your own

Roles: demonstrations, comparison_prompts, comparisons, rl_prompts and documents come in the splits ``train`` and
``valid``; test_prompts, benchmarks and toxicity_prompts only in ``test``. A file that would be empty is not
written. Equal records give equal bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from transformers import PreTrainedTokenizerBase

from tasks.engine.errors import DataError
from tasks.language.models import load_tokenizer, save_tokenizer
from tasks.records.records import BenchmarkItem, Comparison, Demonstration, Document, Prompt, Record

Split = Literal["train", "valid"]
SPLITS: tuple[Split, ...] = ("train", "valid")
ROWS_PER_WRITE = 1000

RecordType = TypeVar("RecordType", bound=Record)


@dataclass(frozen=True)
class PreparedRecords:
    """Everything data preparation hands on. A role that the data lacks is empty."""

    demonstrations: Mapping[Split, Sequence[Demonstration]] = field(default_factory=dict)
    comparison_prompts: Mapping[Split, Sequence[Prompt]] = field(default_factory=dict)
    comparisons: Mapping[Split, Sequence[Comparison]] = field(default_factory=dict)
    rl_prompts: Mapping[Split, Sequence[Prompt]] = field(default_factory=dict)
    documents: Mapping[Split, Sequence[Document]] = field(default_factory=dict)
    test_prompts: Sequence[Prompt] = ()
    benchmarks: Sequence[BenchmarkItem] = ()
    toxicity_prompts: Sequence[Prompt] = ()


class PreparedData:
    """Reader of a data artifact.

    Raises:
        DataError: the folder holds no prepared data.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "tokenizer").is_dir():
            raise DataError(
                f"{folder}: found no prepared data, expected tokenizer/ and Arrow files; run data_prep again"
            )
        self.folder = folder

    def demonstrations(self, split: Split) -> list[Demonstration]:
        """Prompts with a response each, for supervised fine-tuning."""
        return self._read("demonstrations", split, Demonstration)

    def comparison_prompts(self, split: Split) -> list[Prompt]:
        """Prompts whose responses are still to be sampled and ranked."""
        return self._read("comparison_prompts", split, Prompt)

    def comparisons(self, split: Split) -> list[Comparison]:
        """Ranked responses that came with the data."""
        return self._read("comparisons", split, Comparison)

    def rl_prompts(self, split: Split) -> list[Prompt]:
        """Prompts without a response, for PPO."""
        return self._read("rl_prompts", split, Prompt)

    def documents(self, split: Split) -> list[Document]:
        """Pretraining text."""
        return self._read("documents", split, Document)

    def prompts_for_test(self) -> list[Prompt]:
        """Prompts of owners that no other split knows. Those meant for testing come first."""
        return self._read("test_prompts", "test", Prompt)

    def benchmarks(self) -> list[BenchmarkItem]:
        """Items of automatic benchmarks."""
        return self._read("benchmarks", "test", BenchmarkItem)

    def toxicity_prompts(self) -> list[Prompt]:
        """Prompts that bait toxic answers."""
        return self._read("toxicity_prompts", "test", Prompt)

    def training_prompts(self) -> set[str]:
        """Texts of all prompts that a stage trains on."""
        asked = [*self.comparison_prompts("train"), *self.rl_prompts("train")]
        asked += [demonstration.prompt for demonstration in self.demonstrations("train")]
        asked += [comparison.prompt for comparison in self.comparisons("train")]
        return {prompt.text for prompt in asked}

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of every stage."""
        return load_tokenizer(self.folder / "tokenizer")

    def file(self, role: str, split: str) -> Path:
        """The Arrow file of one role and split, whether or not there is one."""
        return self.folder / role / f"{split}.arrow"

    def _read(self, role: str, split: str, kind: type[RecordType]) -> list[RecordType]:
        return read_records(self.file(role, split), kind)


def read_records(path: Path, kind: type[RecordType]) -> list[RecordType]:
    """The records in one Arrow file; none where there is no file."""
    if not path.is_file():
        return []
    prompt_columns = tuple(Prompt.model_fields)
    records = []
    for row in Dataset.from_file(str(path), in_memory=True):
        if "metadata" in row:
            row["metadata"] = json.loads(row["metadata"])
        if "prompt" in kind.model_fields:
            row["prompt"] = {name: row.pop(name) for name in prompt_columns}
        records.append(kind.model_validate(row))
    return records


def write_prepared_data(folder: Path, records: PreparedRecords, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write everything but the audit and the world below ``folder``."""
    for role in ("demonstrations", "comparison_prompts", "comparisons", "rl_prompts", "documents"):
        for split in SPLITS:
            write_records(folder, role, split, getattr(records, role).get(split, ()))
    for role in ("test_prompts", "benchmarks", "toxicity_prompts"):
        write_records(folder, role, "test", getattr(records, role))
    save_tokenizer(tokenizer, folder / "tokenizer")


_PROMPT = {name: Value("string") for name in ("prompt_id", "owner_id", "text", "kind", "metadata")}
_FEATURES = {
    # metadata is JSON text: as a struct every prompt would get every other prompt's keys
    Prompt: Features(_PROMPT),
    Demonstration: Features({**_PROMPT, "response": Value("string"), "labeler_id": Value("string")}),
    Comparison: Features(
        {
            **_PROMPT,
            "completions": List(Value("string")),
            "ranks": List(Value("int32")),
            "labeler_id": Value("string"),
            "source_policy": List(Value("string")),
            "finished": List(Value("bool")),
            "quality": List(Value("int32")),
            "flags": List(List(Value("string"))),
            "seconds": Value("float64"),
        }
    ),
    Document: Features({"text": Value("string"), "source": Value("string")}),
    BenchmarkItem: Features(
        {
            **{name: Value("string") for name in ("item_id", "task", "form", "context")},
            "choices": List(Value("string")),
            "answer": Value("int32"),
            "references": List(Value("string")),
        }
    ),
}


def write_records(folder: Path, role: str, split: str, records: Sequence[Record]) -> None:
    """Write ``<folder>/<role>/<split>.arrow``; no file for no records."""
    if not records:
        return
    path = folder / role / f"{split}.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not Dataset.save_to_disk: its state.json holds a fingerprint that differs from run to run.
    with ArrowWriter(features=_FEATURES[type(records[0])], path=str(path), writer_batch_size=ROWS_PER_WRITE) as writer:
        for row in _rows(records):
            writer.write(row)
        writer.finalize()


def _rows(records: Iterable[Record]) -> Iterable[dict[str, Any]]:
    for record in records:
        row = record.model_dump()
        row |= row.pop("prompt", {})
        if "metadata" in row:
            row["metadata"] = json.dumps(row["metadata"], sort_keys=True, ensure_ascii=False)
        yield row
