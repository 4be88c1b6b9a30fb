"""Data preparation, the story: read, clean, split, measure, write, and check what was written."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from tasks.data_prep.audit import check_no_leaks
from tasks.data_prep.clean import PROMPT_ROLES, Cleaner, Table
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.crew import Crew
from tasks.data_prep.ends import notices_of_ends
from tasks.data_prep.enough import Documents, require_documents, require_enough
from tasks.data_prep.facts import How
from tasks.data_prep.layouts import layout_of, notice_of_template
from tasks.data_prep.lengths import Limits, Ruler
from tasks.data_prep.misfits import Measure, drop_misfits
from tasks.data_prep.rules import MOVED
from tasks.data_prep.shelf import KINDS, ROWS, Numbers, RowBatch, Shelf, Shelver, in_batches
from tasks.data_prep.sources.folder import count_rows, folder_rows
from tasks.data_prep.sources.formats.table import read_rows
from tasks.data_prep.sources.hub import count_hub_rows, hub_rows
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.sources.rows import Row
from tasks.data_prep.sources.sandbox import read_sandbox
from tasks.data_prep.tokenizer import EOS, adopt_tokenizer, train_tokenizer
from tasks.engine.config import ModelConfig
from tasks.language.plain_layout import Layout
from tasks.language.tokenizer import save_tokenizer
from tasks.records.data import write_records, write_tables

UNKNOWN_SHARE_WORTH_A_NOTICE = 0.01
ROWS_WORTH_A_PROCESS = 10_000
"""Rows for which starting one more process pays: it takes some seconds, in which this one prepares as many."""


class Bar(Protocol):
    """Counts what is done."""

    def update(self, more: int = 1) -> None:
        """So many more."""


class _Silent:
    def update(self, more: int = 1) -> None:
        """Tell nobody."""


Progress = Callable[[int, str], AbstractContextManager[Bar]]
"""(total, unit) -> a bar."""


def prepare(
    config: DataPrepConfig,
    model: ModelConfig,
    folder: Path,
    documents_for: Sequence[str] = (),
    *,
    processes: int = 1,
    progress: Progress = lambda _total, _unit: nullcontext(_Silent()),
) -> dict[str, float]:
    """Fill ``folder`` with the data artifact; returns the numbers of rows kept and dropped.

    Rows are read, measured and written some at a time, and wait on disk in between: what is kept of each in memory is some 100
    bytes, however long its texts are.

    Args:
        config: what to read and how to clean it.
        model: its tokenizer is adopted or trained.
        folder: of the artifact.
        documents_for: knobs of later stages that need pretraining documents.
        processes: that divide the work, where there are rows enough; results do not depend on it.
        progress: shows how far it is.

    Raises:
        DataError: a file, a row or a split that cannot be used, with its place and remedy.
        ModelError: the base model's tokenizer cannot be used.
        WorkerKilled: one of the processes was killed.
    """
    # 1. Read.
    adopted = adopt_tokenizer(model)
    layout, end = layout_of(config.prompt_layout, adopted), str(adopted.eos_token) if adopted else EOS
    total = rows_to_read(config)
    crew_size = max(1, min(processes, total // ROWS_WORTH_A_PROCESS))
    with TemporaryDirectory(dir=folder, prefix=".rows-") as aside, Crew(crew_size, Path(aside)) as crew:
        with progress(total, "row") as bar:
            shelf = read_source(config, layout, end, Path(aside), crew, bar.update)
        source = shelf.rest
        source.notices += notice_of_template(config.prompt_layout, adopted)
        source.notices += notices_of_ends(shelf.changed, shelf.read, end)
        # 2. Clean and split.
        cleaner = Cleaner(config, shelf)
        table = cleaner.clean()
        documents = cleaner.split_documents()
        cleaner.count_left_out()
        require_enough(config, table, documents, cleaner.rows, shelf)
        # 3. The tokenizer sees training text only.
        tokenizer = adopted or train_tokenizer(model, training_text(shelf, table, documents["train"]))
        # 4. Drop what the model cannot read.
        measure = Measure(Ruler(tokenizer, Limits(config.prompt_tokens, config.response_tokens)))
        left = sum(map(len, table.values())) + sum(map(len, documents.values()))
        with progress(left, "measured row") as bar:
            unknown_share = drop_misfits(table, documents, cleaner, shelf, measure, crew, bar.update)
        require_enough(config, table, documents, cleaner.rows, shelf)
        require_documents(documents, cleaner.rows, documents_for)
        # 5. Write.
        for (role, split), numbers in [*table.items(), *_of_documents(documents)]:
            write_tables(folder / role / f"{split}.arrow", KINDS[role], shelf.tables(numbers))
        write_records(folder, "benchmarks", "test", source.benchmarks)
        write_records(folder, "toxicity_prompts", "test", source.toxicity_prompts)
        save_tokenizer(tokenizer, folder / "tokenizer")
    if source.world is not None:
        source.world.write(folder)
    # 6. Check what was written.
    compared = check_no_leaks(folder)
    notices = list(source.notices)
    if unknown_share > UNKNOWN_SHARE_WORTH_A_NOTICE:
        notices.append(
            f"tokenizer: {unknown_share:.1%} of the tokens are unknown words; raise "
            "model.tokenizer.vocab_size or use bpe"
        )
    audit = {
        "source": config.source,
        "rows": [row.to_json() for row in cleaner.rows.values()],
        "benchmarks": _by_task(source),
        "toxicity_prompts": len(source.toxicity_prompts),
        "pii_rules": dict(sorted(cleaner.pii.items())),
        "tokenizer": {"entries": len(tokenizer), "unknown_share": round(unknown_share, 6)},
        "leak_check": compared,
        "notices": notices,
    }
    (folder / "audit.json").write_text(json.dumps(audit, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return _metrics(audit)


def rows_to_read(config: DataPrepConfig) -> int:
    """About as many rows as there are to read, or to make up."""
    if config.source == "hub":
        assert config.hub is not None
        return count_hub_rows(config.hub)
    if config.source == "folder":
        assert config.folder is not None and config.files is not None
        return count_rows(config.folder, config.files)
    assert config.sandbox is not None
    made_up = ("documents", "demonstrations", "comparison_prompts", "rl_prompts", "test_prompts")
    return sum(getattr(config.sandbox, role) for role in made_up)


def read_source(
    config: DataPrepConfig, layout: Layout, end: str, aside: Path, crew: Crew, count_row: Callable[[int], None]
) -> Shelf:
    """All rows of the configured source, their prompts laid out, on a shelf in the folder ``aside``."""
    rest = SourceRecords()
    shelf = Shelf(rest)
    how = How(config.duplicate_prefix_words, config.duplicate_prefix_fraction, config.seed, config.drop_pii)
    shelved = crew.each(Shelver(aside, layout, end, how), _batches(config, layout, rest))

    def counted() -> Iterator[Any]:
        for batch in shelved:
            count_row(batch.rows)
            yield batch

    shelf.fill(counted())
    return shelf


def _batches(config: DataPrepConfig, layout: Layout, rest: SourceRecords) -> Iterator[RowBatch]:
    """What is put on the shelf; the rest goes into ``rest``."""
    numbers = itertools.count()
    if config.source == "sandbox":
        assert config.sandbox is not None
        world = read_sandbox(config.sandbox, config.seed)
        rest.benchmarks, rest.toxicity_prompts, rest.world = world.benchmarks, world.toxicity_prompts, world.world
        for role in KINDS:
            records = getattr(world, role)
            for start in range(0, len(records), ROWS):
                yield RowBatch(next(numbers), role, (), False, records[start : start + ROWS])
        return
    for role, rows in _rows(config, layout, rest):
        if role in KINDS:
            yield from in_batches(role, rows, numbers)
        else:
            read_rows(role, rows, rest)


def _rows(config: DataPrepConfig, layout: Layout, rest: SourceRecords) -> Iterator[tuple[str, Iterator[Row]]]:
    if config.source == "hub":
        assert config.hub is not None
        return hub_rows(config.hub, config.minimum_rows, layout, rest)
    assert config.folder is not None and config.files is not None
    return folder_rows(config.folder, config.files, config.minimum_rows, layout, rest)


def training_text(shelf: Shelf, table: Table, documents: Numbers) -> Iterator[str]:
    """Everything that stages will train on."""
    for rows in shelf.tables(documents):
        yield from rows["text"].to_pylist()
    for role in PROMPT_ROLES:
        for rows in shelf.tables(table[role, "train"]):
            for row in rows.to_pylist():
                yield row["text"]
                yield from [row["response"]] if "response" in row else row.get("completions", [])


def _of_documents(documents: Documents) -> list[tuple[tuple[str, str], Numbers]]:
    return [(("documents", split), numbers) for split, numbers in documents.items()]


def _by_task(source: SourceRecords) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in source.benchmarks:
        counts[item.task] = counts.get(item.task, 0) + 1
    return counts


def _metrics(audit: dict[str, Any]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for row in audit["rows"]:
        metrics[f"{row['role']}/{row['split']}"] = float(row["kept"])
        for rule, count in row["dropped"].items():
            metrics[f"dropped/{rule}"] = metrics.get(f"dropped/{rule}", 0.0) + count
    moved = sum(
        row["dropped"].get(MOVED, 0) for row in audit["rows"]
    )  # read once, and counted again among the test prompts
    metrics["rows/read"] = float(sum(row["read"] for row in audit["rows"]) - moved)
    metrics["benchmarks/test"] = float(sum(audit["benchmarks"].values()))
    metrics["toxicity_prompts/test"] = float(audit["toxicity_prompts"])
    metrics["tokenizer/entries"] = float(audit["tokenizer"]["entries"])
    return metrics
