"""How many rows each stage trains on, and the steps that follow."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from flows.config import RLHFConfig
from tasks.data_prep.config import DataPrepConfig, FilesConfig, MinimumRows
from tasks.data_prep.shelf import ROWS
from tasks.data_prep.sources.folder import folder_rows
from tasks.data_prep.sources.formats.table import read_rows
from tasks.data_prep.sources.records import SourceRecords
from tasks.dpo.config import DPOConfig
from tasks.language.plain_layout import BARE
from tasks.records.rankings import epoch_batches
from tasks.sft.config import SFTConfig
from tasks.sft.plan import plan_batches

ABOUT = "about; before cleaning"


class Rows(NamedTuple):
    """Training rows of a role."""

    number: int
    source: str
    """How the count is known."""
    completions: tuple[int, int] | None = None
    """Fewest and most of a ranking, where the files tell."""


class Counts(NamedTuple):
    """Training rows by role; None where only data preparation will know."""

    demonstrations: Rows | None
    comparisons: Rows | None
    rl_prompts: Rows | None


class FineTuning(NamedTuple):
    """One supervised fine-tuning."""

    steps: int
    demonstrations: int
    """Over all epochs."""
    pretraining_rows: int
    """Over all epochs; drawn with the stage's own seed."""


class Ranking(NamedTuple):
    """Reward-model training."""

    steps: int
    largest_batch_pairs: int
    fewest_pairs: int
    most_pairs: int


class Optimisation(NamedTuple):
    """One PPO run."""

    iterations: int
    minibatches_per_iteration: int
    optimizer_steps: int
    pretraining_rows: int
    """Over all optimizer steps; 0 for gamma = 0."""
    prompts: int
    """Drawn in the whole run."""


def training_rows(config: RLHFConfig) -> Counts:
    """Declared in ``dry_run``, else counted: in the files, or in the sandbox's configuration.

    What is counted is before cleaning, and the training share of it.
    """
    declared, data = config.dry_run, config.data_prep
    counted = _counted(data)
    share = 1.0 - data.validation_fraction - data.test_fraction

    def rows(name: str, limit: int | None = None) -> Rows | None:
        given: int | None = getattr(declared, name)
        if given is not None:
            return Rows(given, f"dry_run.{name}")
        if name not in counted:
            return None
        found = max(1, round(counted[name].number * share))
        return counted[name]._replace(number=found if limit is None else min(found, limit))

    return Counts(rows("demonstrations"), rows("comparisons", config.comparisons.max_prompts), rows("rl_prompts"))


def fine_tuning(config: SFTConfig, demonstrations: int) -> FineTuning:
    """By the very plan that training follows."""
    plan = plan_batches(
        demonstrations,
        epochs=config.epochs,
        batch_size=config.batch_size,
        pretraining_fraction=config.pretraining_fraction,
        seed=config.seed,
    )
    return FineTuning(
        len(plan), sum(len(batch.demonstrations) for batch in plan), sum(batch.pretraining_rows for batch in plan)
    )


def ranking(config: RLHFConfig, comparisons: int, completions: tuple[int, int] | None = None) -> Ranking:
    """None is tied; ``completions`` are those of the data, else ``completions_min`` to ``completions_max``."""
    knobs, sampled = config.reward_model, config.comparisons
    fewest, most = (_pairs(k) for k in completions or (sampled.completions_min, sampled.completions_max))
    by_prompt = knobs.batch_element == "prompt"
    elements = comparisons if by_prompt else comparisons * most
    batches = epoch_batches(elements, epochs=knobs.epochs, batch_size=knobs.batch_size, seed=knobs.seed)
    return Ranking(
        steps=len(batches),
        largest_batch_pairs=knobs.batch_size * (most if by_prompt else 1),
        fewest_pairs=comparisons * fewest,
        most_pairs=comparisons * most,
    )


def preference(knobs: DPOConfig, comparisons: int) -> int:
    """Optimizer steps of a policy trained on rankings; every ranking orders two completions."""
    used = comparisons if knobs.trained_on == "all" else comparisons // 2  # the halves are drawn by prompt
    return len(epoch_batches(used, epochs=knobs.epochs, batch_size=knobs.batch_size, seed=knobs.seed))


def optimisation(config: RLHFConfig) -> Optimisation:
    """The pipeline's own PPO run."""
    ppo = config.ppo
    return Optimisation(
        iterations=ppo.iterations,
        minibatches_per_iteration=ppo.minibatches_per_iteration,
        optimizer_steps=ppo.optimizer_steps,
        pretraining_rows=ppo.optimizer_steps * ppo.ptx_rows_per_minibatch if ppo.gamma > 0 else 0,
        prompts=ppo.episodes // ppo.responses_per_prompt,
    )


def _pairs(completions: int) -> int:
    return completions * (completions - 1) // 2


def _counted(data: DataPrepConfig) -> dict[str, Rows]:
    if data.source == "sandbox":
        assert data.sandbox is not None
        world = data.sandbox
        return {
            "demonstrations": Rows(world.demonstrations, ABOUT),
            "comparisons": Rows(world.comparison_prompts, ABOUT),
            "rl_prompts": Rows(world.rl_prompts, ABOUT),
        }
    if data.source == "folder" and data.folder and Path(data.folder).expanduser().is_dir():
        assert data.files is not None
        return _records(data.folder, data.files)
    return {}


def _records(folder: str, files: FilesConfig) -> dict[str, Rows]:
    """A line may hold several records: shots, annotators."""
    none_needed = MinimumRows(**dict.fromkeys(MinimumRows.model_fields, 0))
    counts, sizes = Counter[str](), set[int]()
    for role, rows in folder_rows(folder, files, none_needed, BARE, SourceRecords(), Counts._fields):
        while some := list(islice(rows, ROWS)):
            read = SourceRecords()
            read_rows(role, some, read)
            counts[role] += len(getattr(read, role))
            sizes |= {len(comparison.completions) for comparison in read.comparisons}
    found = {role: Rows(counts[role], ABOUT) for role in Counts._fields if counts[role]}
    if sizes:
        found["comparisons"] = Rows(counts["comparisons"], ABOUT, (min(sizes), max(sizes)))
    return found
