"""What each kind of labeler is configured with."""

import importlib.util
import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from tasks.chat.config import ChatModelConfig
from tasks.engine.config import Config
from tasks.engine.digests import file_digest
from tasks.engine.inputs import folder_fields

_SHOWN = ("{principles}", "{prompt}", "{responses}")


class FlagConfig(Config):
    """One mark that a response can get."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """In the labels."""
    text: str = Field(min_length=1)
    """What the labeler reads."""


class PeopleConfig(Config):
    """What people are asked on the labelling page."""

    labels_per_item: int = Field(ge=1)
    """Labels that a prompt needs which is not shared."""
    enough: float = Field(gt=0, le=1)
    """Share of the labels that must be there before the run goes on."""
    quality_levels: int = Field(ge=2, le=9)
    """Overall quality of a response, from 1 to this."""
    flags: list[FlagConfig]
    """The marks that a response can get, in the order in which they are shown."""
    instructions: str
    """Shown beside every item; an empty line separates paragraphs."""


class ChatLabelerConfig(ChatModelConfig):
    """A chat model that ranks all responses to a prompt at once, by written principles."""

    orders: int = Field(ge=1, le=6)
    """Orders in which the responses of a prompt are shown; their mean places are the ranking. Every second order is the reverse
    of the one before it."""
    principles: list[str] = Field(min_length=1)
    """By what to rank, one sentence each."""
    system: str
    """System message; empty sends none."""
    template: str
    """User message; {principles}, {prompt} and {responses} are replaced by the texts, in one pass."""
    max_unranked_share: float = Field(ge=0, lt=1)
    """The stage fails when a larger share of the prompts is left without a ranking."""

    @model_validator(mode="after")
    def _shows_everything(self) -> "ChatLabelerConfig":
        if missing := [name for name in _SHOWN if name not in self.template]:
            raise ValueError(
                f"template lacks {', '.join(missing)}; the model must see principles, prompt and responses"
            )
        return self


class FunctionConfig(Config):
    """A rule of your own."""

    name: str
    """package.module:function, called with a prompt and the list of its responses, all as text; it returns a number for each
    response, higher is better, and equal numbers are ties."""
    seconds: float = Field(gt=0)
    """A call that takes longer ends the stage."""

    @field_validator("name")
    @classmethod
    def _is_a_place(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
            raise ValueError(f"found {name[:70]!r}, expected package.module:function")
        return name

    def fingerprint_fields(self) -> dict[str, Any]:
        """The module counts by its text; how long it may take does not count."""
        return {"name": self.name, "source": _source_digest(self.name.partition(":")[0])}


class TeacherConfig(Config):
    """A reward model whose scores rank."""

    folder: str | None
    """Folder `model` of a reward model that this program trained; it must share the policy's tokenizer."""
    tie_margin: float = Field(ge=0)
    """Neighbouring scores that differ by no more share a rank."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The folder counts by its files."""
        return {"folder": folder_fields(self.folder or ""), "tie_margin": self.tie_margin}


def _source_digest(module: str) -> str:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    return file_digest(Path(found.origin)) if found and found.origin and Path(found.origin).is_file() else ""
