"""The beginning of every data file, read, cleaned and measured by the functions of data preparation itself."""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from flows.config import RLHFConfig
from tasks.data_prep.clean import Cleaner, Table
from tasks.data_prep.crew import Crew
from tasks.data_prep.ends import notices_of_ends
from tasks.data_prep.facts import How
from tasks.data_prep.lengths import Limits, Measured, Ruler
from tasks.data_prep.misfits import Measure, drop_misfits
from tasks.data_prep.prepare import training_text
from tasks.data_prep.shelf import KINDS, Numbers, RowBatch, Shelf, Shelver, in_batches
from tasks.data_prep.sources.filter import RowFilter
from tasks.data_prep.sources.folder import BARE_ROLES, choose_files, read_benchmark, require_file, rows_of
from tasks.data_prep.sources.formats.table import read_rows
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.split import AnySplit, prompt_of
from tasks.data_prep.tokenizer import EOS, train_tokenizer
from tasks.language.plain_layout import BARE, Layout
from tasks.language.types import PreTrainedTokenizerBase
from tasks.records.records import Comparison, Demonstration, Document, Prompt, turns_of

ROWS = 2_000
"""Read of every file; ours. A thousand rows are known within a second, and a share of them to three points."""

FEWEST = 10
"""Rows from which a share or a median means something."""


class DataSample(NamedTuple):
    """What was read and what is left of it."""

    source: SourceRecords
    cleaner: Cleaner
    shelf: Shelf
    """The facts of the rows; their texts are gone."""
    numbers: Table
    """(Role, split) -> numbers of the rows that stay."""
    documents: dict[AnySplit, Numbers]
    """Split -> numbers of the documents that stay."""
    table: dict[tuple[str, AnySplit], list[Any]]
    """(Role, split) -> rows that stay."""
    texts: list[str]
    """Training documents that stay."""
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


def read_sample(config: RLHFConfig, layout: Layout, tokenizer: PreTrainedTokenizerBase | None) -> DataSample:
    """Read and prepare.

    Raises:
        DataError: a row that cannot be used, with file and line.
    """
    data, source, files = config.data_prep, SourceRecords(), dict[str, int]()
    how = How(data.duplicate_prefix_words, data.duplicate_prefix_fraction, data.seed, data.drop_pii)
    with TemporaryDirectory() as name:
        aside, shelf = Path(name), Shelf(source)
        end = str(tokenizer.eos_token) if tokenizer else EOS
        crew = Crew(1, aside)
        shelf.fill(crew.each(Shelver(aside, layout, end, how), _batches(config, layout, source, files)))
        source.notices += notices_of_ends(shelf.changed, shelf.read, end)
        cleaner = Cleaner(data, shelf)
        table, documents = cleaner.clean(), cleaner.split_documents()
        cleaner.count_left_out()
        known = tokenizer or train_tokenizer(config.model, training_text(shelf, table, documents["train"]))
        ruler = Ruler(known, Limits(data.prompt_tokens, data.response_tokens))
        measured = {
            role: ruler.measure(shelf.records(numbers, KINDS[role]))
            for (role, split), numbers in table.items()
            if split == "train"
        }
        drop_misfits(table, documents, cleaner, shelf, Measure(ruler), crew)
        records = {place: shelf.records(numbers, KINDS[place[0]]) for place, numbers in table.items()}
        texts = [document.text for document in shelf.records(documents["train"], Document)]
    whole = all(rows < ROWS for rows in files.values())
    return DataSample(source, cleaner, shelf, table, documents, records, texts, measured, files, whole)


def _batches(config: RLHFConfig, layout: Layout, source: SourceRecords, read: dict[str, int]) -> Iterator[RowBatch]:
    data, numbers = config.data_prep, count()
    assert data.folder is not None and data.files is not None
    root = Path(data.folder).expanduser()
    wanted = RowFilter(data.files.where or {})
    for role, found in choose_files(root, data.files, source.notices).items():
        require_file(data.folder, role, found, data.files, data.minimum_rows)
        for name, path in found.items():
            rows = list(islice(rows_of(path, name, BARE if role in BARE_ROLES else layout), ROWS))
            read[name] = len(rows)
            if role == "benchmarks":
                source.benchmarks += read_benchmark(iter(rows), name, source.notices)
            elif role in KINDS:
                yield from in_batches(role, wanted.of(rows, name, source.notices), numbers)
            else:
                read_rows(role, wanted.of(rows, name, source.notices), source)
    wanted.require_known_fields()


def share(part: int, of: Sequence[object] | int) -> float:
    """Of a whole that may be empty."""
    whole = of if isinstance(of, int) else len(of)
    return part / whole if whole else 0.0


def typed(row: Prompt | Demonstration | Comparison) -> str:
    """The last request of a row before the layout."""
    return turns_of(prompt_of(row))[-1].content
