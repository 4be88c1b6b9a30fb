"""What the checks look at: the configuration, and what it names, each read once and only when a check asks for it."""

from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from flows.ask.arithmetic.counts import Counts, Rows, training_rows
from flows.ask.arithmetic.shapes import Shapes, shapes_of
from flows.ask.doctor.requirements import inspect_models
from flows.ask.doctor.sample import Sample, read_sample
from flows.config import RLHFConfig
from tasks.data_prep.layouts import layout_of
from tasks.data_prep.tokenizer import adopt_tokenizer
from tasks.engine.findings import Finding
from tasks.language.inspect import refuse
from tasks.language.plain_layout import Layout


class Patient:
    """A configuration under examination."""

    def __init__(self, config: RLHFConfig) -> None:
        self.config = config

    @property
    def model_folder(self) -> Path | None:
        """The base model's folder; None where it is built, or named on a hub."""
        name = self.config.model.name_or_path
        folder = Path(name).expanduser() if name else None
        return folder if folder is not None and (folder / "config.json").is_file() else None

    @cached_property
    def model_findings(self) -> list[Finding]:
        """What is known of the base model and of the reward model's body.

        Raises:
            ModelError: a folder that is not there.
        """
        return inspect_models(self.config)

    @property
    def shapes(self) -> Shapes:
        """Sizes of the networks.

        Raises:
            PlumblineError: they cannot be known.
        """
        refuse(self.model_findings)
        return shapes_of(self.config)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The base model's; None where one is trained, or the model is not here.

        Raises:
            ModelError: it cannot be used.
        """
        return adopt_tokenizer(self.config.model) if self.model_folder is not None else None

    @cached_property
    def layout(self) -> Layout:
        """How prompts are laid out; from now on a chat layout's end of turn is the tokenizer's EOS.

        Raises:
            PlumblineError: it cannot be used.
        """
        return layout_of(self.config.data_prep.prompt_layout, self.tokenizer)

    @cached_property
    def sample(self) -> Sample | None:
        """The beginning of every data file, prepared as data preparation will; None where there are no files to read.

        Raises:
            PlumblineError: a row that cannot be used.
        """
        data = self.config.data_prep
        unknown_model = self.config.model.name_or_path is not None and self.model_folder is None
        if data.source != "jsonl_folder" or unknown_model or not Path(data.folder or "").expanduser().is_dir():
            return None
        return read_sample(self.config, self.layout, self.tokenizer)

    @cached_property
    def rows(self) -> Counts:
        """Training rows: declared, else those that the sample keeps, else what the embedded world is asked to write."""
        if self.config.data_prep.source == "sandbox":
            return training_rows(self.config)
        declared, sample = self.config.dry_run, self.sample
        counts = {}
        for role in Counts._fields:
            given = getattr(declared, role)
            kept = len(sample.table[role, "train"]) if sample is not None and sample.whole else 0
            number = kept if given is None else given
            counts[role] = (
                Rows(number, "kept by data preparation" if given is None else f"dry_run.{role}") if number else None
            )
        if counts["comparisons"] is not None:
            most = self.config.comparisons.max_prompts
            counts["comparisons"] = counts["comparisons"]._replace(number=min(most, counts["comparisons"].number))
        return Counts(**counts)

    @cached_property
    def on_gpu(self) -> bool:
        """Whether the run asks for a GPU that is there."""
        return self.config.runtime.device.startswith("cuda") and torch.cuda.is_available()
