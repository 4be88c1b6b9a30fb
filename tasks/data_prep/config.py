"""The knobs of data preparation."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.engine.config import Config
from tasks.sandbox.groups import Naming

CHAT = "chat"
AUTO = "auto"
"""As ``prompt_layout``: the chat template of the model's tokenizer."""
Role = Literal[
    "demonstrations", "comparisons", "rl_prompts", "documents", "test_prompts", "toxicity_prompts", "benchmarks"
]


class SandboxConfig(Config):
    """How much the embedded world writes. Counts are before cleaning and splitting."""

    documents: int = Field(gt=0)
    """Pretraining texts, about 17 words each."""
    demonstrations: int = Field(gt=0)
    """Prompts with a demonstrator's answer."""
    comparison_prompts: int = Field(gt=0)
    """Prompts whose answers the simulated labelers will rank."""
    rl_prompts: int = Field(gt=0)
    """Prompts for PPO."""
    test_prompts: int = Field(gt=0)
    """Prompts of owners of their own, for evaluation."""
    benchmark_items_per_task: int = Field(gt=0)
    """Items of every automatic benchmark."""
    toxicity_prompts: int = Field(ge=0)
    """Rude requests that bait rude answers."""
    held_out_share: float = Field(ge=0, le=1)
    """Probability that a test prompt is about people and things that tuning never sees."""
    ambiguous_share: float = Field(ge=0, le=1)
    """Share of the prompts that name two people and ask about him or her. About half of these could mean either, and labelers
    reward the question back."""
    labeler_groups: Naming
    """Two groups of labelers with opposite tastes, each of which ranks the prompts of its own. named puts the group's name before
    the request; unnamed does not, so that nobody can tell; none: all labelers want nearly the same."""


class FilesConfig(Config):
    """Glob patterns below ``folder``, by role; a file belongs to the first role, in this order, that matches it. The layouts
    of rows are described in ``tasks/data_prep/sources/formats``, the kinds of files in ``.../files/kinds.py``."""

    demonstrations: list[str]
    """{prompt, response}, {messages}, ...: supervised fine-tuning."""
    comparisons: list[str]
    """Reward model: {prompt, chosen, rejected}, {prompt, completions, ranks}, ..."""
    rl_prompts: list[str]
    """{prompt}: PPO."""
    documents: list[str]
    """{text}: pretraining text, for the tokenizer, the base model and the pretraining term of PPO-ptx."""
    test_prompts: list[str]
    """{prompt}: evaluation only; their owners are in no other split."""
    toxicity_prompts: list[str]
    """{prompt}: evaluation only; used bare, without ``prompt_layout``."""
    benchmarks: list[str]
    """Multiple choice or exact answers; the task is the file's name."""
    benchmark_items_per_task: int = Field(gt=0)
    """Of a longer benchmark file, so many items, evenly spaced, are kept."""
    exclude: list[str]
    """Patterns, on file name or relative path, of files to leave alone."""
    where: dict[str, list[str | int | float | bool | None]] | None
    """Field -> the values that a row may have in it; rows with others, or without the field, are left alone. null takes all
    rows."""


class HubRole(Config):
    """One dataset on the Hugging Face hub and how its columns are called."""

    name: str
    """Dataset on the hub, or a local folder that ``datasets.load_dataset`` reads."""
    config: str | None
    """Configuration (subset) of the dataset."""
    split: str
    """Split or slice, such as train or train[:1000]."""
    revision: str
    """Commit of the dataset: a branch may change under a cached result."""
    fields: dict[str, str]
    """Field of a known format -> column. A dotted path reaches into structs and lists: messages.0.content. {} takes all
    columns as they are called."""


OPTIONAL = "documents"
"""The one role that a run can do without."""


class MinimumRows(Config):
    """Fewest training rows, after cleaning. 0 makes documents optional; a run needs some of every other role."""

    demonstrations: int = Field(ge=0)
    """Demonstrations."""
    comparisons: int = Field(ge=0)
    """Rankings; in the sandbox, prompts to be ranked."""
    rl_prompts: int = Field(ge=0)
    """Prompts for PPO."""
    documents: int = Field(ge=0)
    """Pretraining texts."""
    test_prompts: int = Field(ge=0)
    """Prompts for evaluation."""


class DataPrepConfig(Config):
    """From raw data to clean, owner-disjoint splits (InstructGPT section 3.2 and appendix A)."""

    source: Literal["sandbox", "folder", "hub"]
    """The embedded world, a folder of files (JSONL, JSON, CSV, Parquet, saved datasets), or datasets of the Hugging Face hub."""
    sandbox: SandboxConfig | None
    """Read when source is sandbox, else null."""
    folder: str | None
    """Read when source is folder, else null."""
    files: FilesConfig | None
    """Read when source is folder, else null."""
    hub: dict[Role, HubRole] | None
    """Role -> dataset; read when source is hub, else null."""
    prompt_layout: str
    """What the model sees of a raw prompt, which replaces {prompt}; or chat, the chat template of the model's tokenizer, whose
    end of turn then ends responses; or auto, chat where the tokenizer has a template and the bare prompt elsewhere. The sandbox
    applies its own."""
    prompt_tokens: int = Field(gt=0)
    """Longer prompts are dropped."""
    response_tokens: int = Field(gt=0)
    """Demonstrations and rankings with a longer response, EOS included, are dropped."""
    validation_fraction: float = Field(ge=0, lt=1)
    """Share of the owners (for documents: of the texts) whose rows are for validation."""
    test_fraction: float = Field(ge=0, lt=1)
    """Share of the owners whose prompts are for the final evaluation."""
    max_prompts_per_owner: int = Field(gt=0)
    """Of a busier owner, a random choice of so many prompts per role is kept."""
    duplicate_prefix_words: int = Field(gt=0)
    """Two prompts that share so many leading words are duplicates."""
    duplicate_prefix_fraction: float = Field(gt=0, le=1)
    """Two prompts that share this fraction of the shorter one's words, from its start, are duplicates."""
    drop_pii: bool
    """Drop training rows with personally identifiable information."""
    minimum_rows: MinimumRows
    """Refuse to go on with less."""
    seed: int = Field(ge=0)
    """Which owners go where, whose prompts survive the cap, and the embedded world."""

    @model_validator(mode="after")
    def _sections_follow_source(self) -> "DataPrepConfig":
        sections = {"sandbox": self.sandbox, "folder": self.folder, "files": self.files, "hub": self.hub}
        needed = {"sandbox": ["sandbox"], "folder": ["folder", "files"], "hub": ["hub"]}[self.source]
        for name, value in sections.items():
            if name in needed and not value:
                raise ValueError(f"source is {self.source}, so {name} must be given; set data_prep.{name}")
            if name not in needed and value is not None:
                raise ValueError(f"source is {self.source}, which does not read {name}; set data_prep.{name}=null")
        return self

    @model_validator(mode="after")
    def _layout_holds_the_prompt(self) -> "DataPrepConfig":
        if self.prompt_layout not in (AUTO, CHAT) and self.prompt_layout.count("{prompt}") != 1:
            raise ValueError(
                f"prompt_layout is {self.prompt_layout!r}; it must contain {{prompt}} exactly once, or be {AUTO} or {CHAT}"
            )
        if "\\n" in self.prompt_layout or "\\t" in self.prompt_layout:
            raise ValueError(
                f"prompt_layout is {self.prompt_layout!r}, with a backslash and a letter where a line break or a tab is "
                "meant; the command line reads no escapes: write the layout in a YAML file, or in bash as "
                "data_prep.prompt_layout=$'\"Human: {prompt}\\n\\nAssistant:\"'"
            )
        return self

    @model_validator(mode="after")
    def _someone_trains(self) -> "DataPrepConfig":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"validation_fraction ({self.validation_fraction}) + test_fraction ({self.test_fraction}) "
                "leave nothing to train on"
            )
        return self
