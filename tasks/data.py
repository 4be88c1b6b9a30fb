"""Prepared data (stand-in)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from transformers import AutoTokenizer

from tasks.records import BenchmarkItem, Comparison, Demonstration, Document, Prompt


class PreparedData:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _read(self, name: str, kind: Any) -> list[Any]:
        path = self.folder / f"{name}.jsonl"
        if not path.is_file():
            return []
        return [kind.model_validate_json(line) for line in path.read_text().splitlines()]

    def demonstrations(self, split: str) -> list[Demonstration]:
        return self._read(f"demonstrations-{split}", Demonstration)

    def comparison_prompts(self, split: str) -> list[Prompt]:
        return self._read(f"comparison_prompts-{split}", Prompt)

    def comparisons(self, split: str) -> list[Comparison]:
        return self._read(f"comparisons-{split}", Comparison)

    def rl_prompts(self, split: str) -> list[Prompt]:
        return self._read(f"rl_prompts-{split}", Prompt)

    def prompts_for_test(self) -> list[Prompt]:
        return self._read("test_prompts", Prompt)

    def documents(self, split: str) -> list[Document]:
        return self._read(f"documents-{split}", Document)

    def benchmarks(self) -> list[BenchmarkItem]:
        return self._read("benchmarks", BenchmarkItem)

    def toxicity_prompts(self) -> list[Prompt]:
        return self._read("toxicity_prompts", Prompt)

    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.folder / "tokenizer")

    def world(self) -> Any:
        from tasks.sandbox.world import World

        path = self.folder / "world.json"
        return World.from_json(json.loads(path.read_text())) if path.is_file() else None


def write_rows(folder: Path, name: str, rows: Sequence[BaseModel]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
