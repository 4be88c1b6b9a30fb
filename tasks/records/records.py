"""The records that travel between stages, checked where they are made."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.language.chat_layout import Turn

TURNS = "turns"
"""Key of a prompt's metadata: its turns before the layout, where the layout changed them."""


class Record(BaseModel):
    """Frozen and closed, like a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Prompt(Record):
    """One request, exactly as the model sees it: the layout is already applied."""

    prompt_id: str = Field(min_length=1)
    owner_id: str = Field(min_length=1)
    """Whoever wrote it; no owner is in two splits (InstructGPT appendix A.2)."""
    text: str = Field(min_length=1)
    kind: str = ""
    """Use case (InstructGPT table 1), empty when unknown."""
    metadata: dict[str, Any] = {}
    """What a gold labeler needs to judge a response, and ``TURNS``; JSON types only."""


def turns_of(prompt: Prompt) -> list[Turn]:
    """The conversation that a prompt is made of, before the layout of the policy: for readers with a layout of their own."""
    return [Turn(*turn) for turn in prompt.metadata.get(TURNS, [("user", prompt.text)])]


class Demonstration(Record):
    """A prompt and the response a labeler wrote for it."""

    prompt: Prompt
    response: str = Field(min_length=1)
    labeler_id: str = Field(min_length=1)


class Comparison(Record):
    """K responses to one prompt, ranked by one labeler; a pair is K = 2."""

    prompt: Prompt
    completions: list[str] = Field(min_length=2)
    ranks: list[int]
    """1 is best; equal ranks are ties."""
    labeler_id: str = Field(min_length=1)
    source_policy: list[str] = []
    """Which policy wrote each completion; empty when unknown."""
    finished: list[bool] = []
    """Whether each completion ended by itself (EOS); empty means that all did."""
    quality: list[int | None] = []
    """Overall quality of each completion, 1 is worst; empty when the labeler was not asked."""
    flags: list[list[str]] = []
    """What the labeler marked about each completion; empty when the labeler was not asked."""
    seconds: float | None = None
    """How long the labeler took; None when unknown."""

    @model_validator(mode="after")
    def _one_rank_each(self) -> "Comparison":
        count = len(self.completions)
        if len(self.ranks) != count:
            raise ValueError(
                f"'ranks' has {len(self.ranks)} entries for {count} completions; rank every completion (ties allowed)"
            )
        if min(self.ranks) < 1:
            raise ValueError(f"'ranks' holds {min(self.ranks)}; the best completion has rank 1")
        for name in ("source_policy", "finished", "quality", "flags"):
            values = getattr(self, name)
            if values and len(values) != count:
                raise ValueError(f"'{name}' has {len(values)} entries for {count} completions")
        return self

    @property
    def ended(self) -> list[bool]:
        """``finished``, written out."""
        return self.finished or [True] * len(self.completions)


class Document(Record):
    """A piece of pretraining text."""

    text: str = Field(min_length=1)
    source: str = ""


class BenchmarkItem(Record):
    """One question of an automatic benchmark."""

    item_id: str = Field(min_length=1)
    task: str = Field(min_length=1)
    form: Literal["choice", "exact"]
    context: str = Field(min_length=1)
    choices: list[str] = []
    answer: int | None = None
    """Index of the right choice; None for form 'exact'."""
    references: list[str] = []
    """Accepted answers of form 'exact'."""

    @model_validator(mode="after")
    def _answerable(self) -> "BenchmarkItem":
        if self.form == "choice":
            if self.answer is None or not 0 <= self.answer < len(self.choices):
                raise ValueError(f"'answer' is {self.answer} for {len(self.choices)} choices; give the index of one")
        elif not self.references:
            raise ValueError("'references' is empty; an item of form 'exact' needs at least one accepted answer")
        return self
