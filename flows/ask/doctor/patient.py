"""What the checks look at: the configuration, and what it names, each read once and only when a check asks for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from flows.ask.arithmetic.counts import Counts, Rows, training_rows
from flows.ask.arithmetic.memory import StageMemory, stage_memory
from flows.ask.arithmetic.shapes import Shapes, shapes_of
from flows.ask.doctor.requirements import inspect_models
from flows.ask.doctor.sample import DataSample, read_sample
from flows.config import RLHFConfig
from tasks.data_prep.layouts import layout_of
from tasks.data_prep.tokenizer import adopt_tokenizer
from tasks.engine.errors import PlumblineError
from tasks.engine.findings import Finding, refuse
from tasks.language.plain_layout import Layout
from tasks.language.types import PreTrainedTokenizerBase

Outcome = TypeVar("Outcome")


class Patient:
    """A configuration under examination. What cannot be read raises a ``PlumblineError``, the same one every time."""

    def __init__(self, config: RLHFConfig) -> None:
        self.config = config
        self._known: dict[str, Any] = {}

    def _once(self, name: str, read: Callable[[], Outcome]) -> Outcome:
        if name not in self._known:
            try:
                self._known[name] = read()
            except PlumblineError as error:
                self._known[name] = error
        known = self._known[name]
        if isinstance(known, PlumblineError):
            raise known
        found: Outcome = known
        return found

    @property
    def model_folder(self) -> Path | None:
        """The base model's folder; None where it is built, or named on a hub."""
        name = self.config.model.name_or_path
        folder = Path(name).expanduser() if name else None
        return folder if folder is not None and (folder / "config.json").is_file() else None

    @property
    def model_findings(self) -> list[Finding]:
        """What is known of the base model and of the reward model's body."""
        return self._once("model_findings", lambda: inspect_models(self.config))

    @property
    def shapes(self) -> Shapes:
        """Sizes of the networks."""
        refuse(self.model_findings)
        return self._once("shapes", lambda: shapes_of(self.config))

    @property
    def stage_memory(self) -> list[StageMemory]:
        """Peaks of the stages, with as many responses to a prompt as the given rankings have."""
        ranked = self.sample.measured.get("comparisons") if self.sample is not None else None
        most = max((len(row.responses) for row in ranked or ()), default=None)
        return stage_memory(self.config, self.shapes, self.config.runtime.precision, most)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The base model's; None where one is trained, or the model is not here."""
        return self._once("tokenizer", lambda: adopt_tokenizer(self.config.model) if self.model_folder else None)

    @property
    def layout(self) -> Layout:
        """How prompts are laid out; from now on a chat layout's end of turn is the tokenizer's EOS."""
        return self._once("layout", lambda: layout_of(self.config.data_prep.prompt_layout, self.tokenizer))

    @property
    def sample(self) -> DataSample | None:
        """The beginning of every data file, prepared as data preparation will; None where there are no files to read."""
        data, model = self.config.data_prep, self.config.model
        elsewhere = model.name_or_path is not None and self.model_folder is None
        if data.source != "folder" or elsewhere or not Path(data.folder or "").expanduser().is_dir():
            return None
        return self._once("sample", lambda: read_sample(self.config, self.layout, self.tokenizer))

    @property
    def rows(self) -> Counts:
        """Training rows: declared, else those that the sample keeps, else what the embedded world is asked to write."""
        if self.config.data_prep.source == "sandbox":
            return training_rows(self.config)
        declared, sample, counts = self.config.dry_run, self.sample, dict[str, Rows | None]()
        for role in Counts._fields:
            given = getattr(declared, role)
            kept = len(sample.table[role, "train"]) if sample is not None and sample.whole else 0
            number = kept if given is None else given
            if role == "comparisons":
                number = min(number, self.config.comparisons.max_prompts)
            source = "kept by data preparation" if given is None else f"dry_run.{role}"
            counts[role] = Rows(number, source) if number else None
        return Counts(**counts)

    @property
    def on_gpu(self) -> bool:
        """Whether the run asks for a GPU that is there."""
        if not self.config.runtime.device.startswith("cuda"):
            return False
        import torch

        return torch.cuda.is_available()
