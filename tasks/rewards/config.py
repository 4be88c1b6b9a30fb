"""The declared list of rewards: who scores, with which weight, and how the scores become one."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tasks.chat.config import ChatModelConfig
from tasks.engine.config import Config
from tasks.engine.inputs import folder_fields
from tasks.rewards.function import source_digest

ONE_WORD = r"[a-z][a-z0-9_]*"


class Part(Config):
    """One who scores responses."""

    name: str = Field(pattern=rf"^{ONE_WORD}$", max_length=40)
    """One word; its scores are tracked as ``reward/<name>``."""
    weight: float
    """Its scores are multiplied by this before the rule combines them; negative where less is better."""


class RewardModelPart(Part):
    """A reward model: the run's own, or one in a folder."""

    kind: Literal["reward_model"]
    """Chooses this class."""
    folder: str | None
    """Folder of a reward model of any family with its tokenizer, ours or another's AutoModelForSequenceClassification with one
    output, which reads the texts with its own tokenizer; null is the run's own reward model, or its ensemble."""
    prompt_layout: str | None
    """What the model in the folder sees of a prompt: a text with {prompt}; null takes its tokenizer's chat template, or the bare
    request where it has none. The run's own reward model reads what the policy reads, so it is null there."""
    spread_penalty: float = Field(ge=0)
    """Lambda of mean - lambda x standard deviation over the ensemble's members; 0 is their mean."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """A folder counts by its content, not by its path."""
        files = {} if self.folder is None else {"folder": folder_fields(self.folder)}
        return super().fingerprint_fields() | files

    @model_validator(mode="after")
    def _fits_its_origin(self) -> "RewardModelPart":
        if self.folder is None and self.prompt_layout is not None:
            raise ValueError(
                f"reward {self.name}: prompt_layout is given and folder is null; the run's own reward model reads what the "
                "policy reads: set prompt_layout=null"
            )
        if self.prompt_layout is not None and self.prompt_layout.count("{prompt}") != 1:
            raise ValueError(
                f"reward {self.name}: prompt_layout is {self.prompt_layout!r}; it must contain {{prompt}} exactly once"
            )
        if self.folder is not None and self.spread_penalty:
            raise ValueError(
                f"reward {self.name}: spread_penalty is {self.spread_penalty:g} for one model in a folder, which has no spread; "
                "set 0, or folder=null and reward_ensemble=2 or more"
            )
        return self


class FunctionPart(Part):
    """A Python function ``(prompts, responses) -> scores``, of two lists of texts and one list of numbers."""

    kind: Literal["function"]
    """Chooses this class."""
    function: str
    """``module:function``, of a module that Python can import, or ``path/to/file.py:function``."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The source of its file counts, not where it lies."""
        fields = super().fingerprint_fields()
        return fields | {"function": self.function.rpartition(":")[2], "source": source_digest(self.function)}

    @field_validator("function")
    @classmethod
    def _names_a_function(cls, function: str) -> str:
        place, _, name = function.rpartition(":")
        if not place or not name.isidentifier():
            raise ValueError(f"found {function[:80]!r}, expected module:function or path/to/file.py:function")
        return function


class ChatPart(ChatModelConfig, Part):
    """A chat model that gives each response a number; its template shows {prompt} and {response}."""

    kind: Literal["chat"]
    """Chooses this class."""
    system: str
    """System message; empty sends none."""
    template: str
    """User message; {prompt} and {response} are replaced by the texts, in one pass."""
    score_pattern: str
    """Regular expression with one group; the last match's number is the score."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> "ChatPart":
        missing = [name for name in ("{prompt}", "{response}") if name not in self.template]
        if missing:
            raise ValueError(f"reward {self.name}: template lacks {', '.join(missing)}; the model must see both texts")
        try:
            groups = re.compile(self.score_pattern).groups
        except re.error as error:
            raise ValueError(f"score_pattern {self.score_pattern!r} is no regular expression ({error})") from error
        if groups != 1:
            raise ValueError(f"score_pattern has {groups} groups; expected exactly one, around the number")
        return self


def _kind(part: Any) -> Any:
    return part.get("kind") if isinstance(part, Mapping) else getattr(part, "kind", None)


AnyPart = Annotated[
    Annotated[RewardModelPart, Tag("reward_model")]
    | Annotated[FunctionPart, Tag("function")]
    | Annotated[ChatPart, Tag("chat")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="expected {name, kind, weight, ...} of kind reward_model, function or chat",
    ),
]


class RewardsConfig(Config):
    """Who scores responses, and the rule that makes one score of several."""

    parts: list[AnyPart] = Field(min_length=1)
    """Each {name, kind, weight, ...}; kinds: reward_model, function, chat."""
    rule: Literal["weights", "minimum", "gate"]
    """weights: the sum of weighted scores; minimum: the lowest weighted score; gate: the guard's weighted score where its score
    is below guard_below, else the sum of the others (Llama 2's safety before helpfulness)."""
    guard: str | None
    """Name of the part that decides; null unless rule is gate."""
    guard_below: float | None
    """The guard's score, before its weight, below which it replaces the others; null unless rule is gate."""

    @property
    def own(self) -> RewardModelPart | None:
        """The part that is the run's own reward model, if there is one."""
        return next((part for part in self.parts if part.kind == "reward_model" and part.folder is None), None)

    @property
    def plain(self) -> bool:
        """Whether all there is is the run's own reward model, as it is."""
        return self.own is not None and len(self.parts) == 1 and self.own.weight == 1.0

    def fingerprint_fields(self) -> dict[str, Any]:
        """Files count by their content."""
        return super().fingerprint_fields() | {"parts": [part.fingerprint_fields() for part in self.parts]}

    @model_validator(mode="after")
    def _fit_together(self) -> "RewardsConfig":
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise ValueError(f"parts are named {', '.join(names)}; give each a name of its own")
        if sum(part.kind == "reward_model" and part.folder is None for part in self.parts) > 1:
            raise ValueError("two parts are the run's own reward model (folder null); name it once")
        if all(part.weight == 0 for part in self.parts):
            raise ValueError("every weight is 0, so that all responses are worth the same; set one")
        if (self.rule == "gate") != (self.guard is not None) or (self.rule == "gate") != (self.guard_below is not None):
            raise ValueError(
                f"rule is {self.rule}, guard {self.guard} and guard_below {self.guard_below}; rule=gate needs both, every other "
                "rule has both null"
            )
        if self.rule == "gate" and (self.guard not in names or len(names) < 2):
            raise ValueError(
                f"guard is {self.guard!r} and the parts are {', '.join(names)}; it must be one of at least two"
            )
        return self
