"""The beginning of every data file, read, cleaned and measured by the functions of data preparation itself."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from flows.config import RLHFConfig
from tasks.data_prep.clean import Cleaner, Table
from tasks.data_prep.ends import take_off_ends
from tasks.data_prep.lengths import Limits, Measured, Ruler
from tasks.data_prep.prepare import drop_misfits, training_text
from tasks.data_prep.sources.filter import RowFilter
from tasks.data_prep.sources.folder import BARE_ROLES, choose_files, read_benchmark, require_file, rows_of
from tasks.data_prep.sources.formats.table import read_rows
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.split import AnySplit, prompt_of
from tasks.data_prep.tokenizer import EOS, train_tokenizer
from tasks.language.plain_layout import BARE, Layout
from tasks.records.records import Comparison, Demonstration, Document, Prompt

ROWS = 2_000
"""Read of every file; ours. A thousand rows are known within a second, and a share of them to three points."""

FEWEST = 10
"""Rows from which a share or a median means something."""


class Sample(NamedTuple):
    """What was read and what is left of it."""

    source: SourceRecords
    cleaner: Cleaner
    table: Table
    """(Role, split) -> rows that stay."""
    documents: dict[AnySplit, list[Document]]
    measured: dict[str, list[Measured]]
    """Role -> tokens of the training rows, before long ones are dropped."""
    files: dict[str, int]
    """File -> rows read of it."""
    whole: bool
    """Whether no file has more rows than were read."""

    @property
    def demonstrations(self) -> list[Demonstration]:
        """Training demonstrations that stay."""
        return [item for item in self.table["demonstrations", "train"] if isinstance(item, Demonstration)]

    @property
    def comparisons(self) -> list[Comparison]:
        """Training rankings that stay."""
        return [item for item in self.table["comparisons", "train"] if isinstance(item, Comparison)]

    @property
    def rl_prompts(self) -> list[Prompt]:
        """Training prompts of PPO that stay."""
        return [item for item in self.table["rl_prompts", "train"] if isinstance(item, Prompt)]


def read_sample(config: RLHFConfig, layout: Layout, tokenizer: PreTrainedTokenizerBase | None) -> Sample:
    """Read and prepare.

    Raises:
        DataError: a row that cannot be used, with file and line.
    """
    source, files = _read(config, layout)
    take_off_ends(source, str(tokenizer.eos_token) if tokenizer else EOS)
    cleaner = Cleaner(config.data_prep, source)
    table, documents = cleaner.clean(), cleaner.split_documents()
    cleaner.count_left_out()
    data = config.data_prep
    measure = tokenizer or train_tokenizer(config.model, training_text(table, documents["train"]))
    ruler = Ruler(measure, Limits(data.prompt_tokens, data.response_tokens))
    measured = {role: [ruler.measure(row) for row in rows] for (role, split), rows in table.items() if split == "train"}
    drop_misfits(table, documents, cleaner, ruler)
    whole = all(rows < ROWS for rows in files.values())
    return Sample(source, cleaner, table, documents, measured, files, whole)


def _read(config: RLHFConfig, layout: Layout) -> tuple[SourceRecords, dict[str, int]]:
    data, source = config.data_prep, SourceRecords()
    assert data.folder is not None and data.files is not None
    root = Path(data.folder).expanduser()
    wanted, read = RowFilter(data.files.where or {}), dict[str, int]()
    for role, found in choose_files(root, data.files, source.notices).items():
        require_file(data.folder, role, found, data.files, data.minimum_rows)
        for name, path in found.items():
            rows = list(islice(rows_of(path, name, BARE if role in BARE_ROLES else layout), ROWS))
            read[name] = len(rows)
            if role == "benchmarks":
                source.benchmarks += read_benchmark(iter(rows), name, source.notices)
            else:
                read_rows(role, wanted.of(rows, name, source.notices), source)
    wanted.require_known_fields()
    return source, read


def share(part: int, of: Sequence[object] | int) -> float:
    """Of a whole that may be empty."""
    whole = of if isinstance(of, int) else len(of)
    return part / whole if whole else 0.0


def typed(sample: Sample, row: Prompt | Demonstration | Comparison) -> str:
    """The last request of a row before the layout."""
    turns = sample.cleaner.origin(row).turns
    return turns[-1].content if turns else prompt_of(row).text
