"""Who judges, beside the gold labeler and the reward model that was optimised, and how a judge is asked."""

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.chat.config import ChatModelConfig
from tasks.engine.config import Config
from tasks.engine.inputs import path_fields

_PLACEHOLDERS = ("{prompt}", "{first}", "{second}")


class ChatJudgeConfig(ChatModelConfig):
    """A chat model that decides which of two responses is better."""

    pairs_per_row: int = Field(gt=0)
    """At most this many test prompts of each row of the table, in file order; every pair is asked in both orders."""
    system: str
    """System message; empty sends none."""
    template: str
    """User message; {prompt}, {first} and {second} are replaced by the texts, in one pass."""
    verdict_pattern: str
    """Regular expression with one group; its last match in the answer is the verdict."""
    verdicts: dict[str, Literal["first", "second", "tie"]]
    """What the group's text means, upper and lower case alike."""
    max_unjudged_share: float = Field(ge=0, lt=1)
    """The evaluation fails when a larger share of a row's pairs is left without a verdict."""
    price_per_million_prompt_tokens: float | None = Field(ge=0)
    """What the endpoint charges, in your currency; null counts no cost."""
    price_per_million_completion_tokens: float | None = Field(ge=0)
    """The same for the tokens of the answers."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> "ChatJudgeConfig":
        missing = [name for name in _PLACEHOLDERS if name not in self.template]
        if missing:
            raise ValueError(f"template lacks {', '.join(missing)}; the judge must see prompt and both responses")
        try:
            groups = re.compile(self.verdict_pattern).groups
        except re.error as error:
            raise ValueError(f"verdict_pattern {self.verdict_pattern!r} is no regular expression ({error})") from error
        if groups != 1:
            raise ValueError(f"verdict_pattern has {groups} groups; expected exactly one, around the verdict")
        unsaid = {"first", "second", "tie"} - set(self.verdicts.values())
        if unsaid:
            raise ValueError(
                f"verdicts never says {', '.join(sorted(unsaid))}; map a text to each of first, second, tie"
            )
        if len({text.casefold() for text in self.verdicts}) != len(self.verdicts):
            raise ValueError(
                f"verdicts {sorted(self.verdicts)} differ only in upper and lower case; give each text once"
            )
        if (self.price_per_million_prompt_tokens is None) != (self.price_per_million_completion_tokens is None):
            raise ValueError("one of the two prices is null; give both, or neither to count no cost")
        return self


class LengthControlConfig(Config):
    """The length-controlled win rate: a logistic model of the verdicts with a term for the difference in length."""

    penalties: list[float] = Field(min_length=1)
    """Ridge penalties to choose from by cross-validation, in units of one prompt's log loss; a policy's quality
    has the weakest whichever is chosen."""
    folds: int = Field(ge=2)
    """Folds of the cross-validation over prompts; a row with fewer judged prompts gets no length-controlled rate."""

    @model_validator(mode="after")
    def _positive(self) -> "LengthControlConfig":
        if min(self.penalties) <= 0:
            raise ValueError(
                f"penalties holds {min(self.penalties)}; a penalty is above 0, or a decided row has no optimum"
            )
        return self


class PairJudgesConfig(Config):
    """Judges that see two responses at once, and how length is taken out."""

    chat: ChatJudgeConfig | None
    """A chat model as judge; null asks none."""
    human_verdicts: str | None
    """JSONL file of people's verdicts on pairs; null reads none."""
    human_pairs: int = Field(ge=0)
    """Pairs written to pairs_for_humans.jsonl for people to judge."""
    length_control: LengthControlConfig
    """How length is taken out of a win rate."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """A file counts by its content, not by its path."""
        fields = super().fingerprint_fields()
        fields["chat"] = self.chat.fingerprint_fields() if self.chat else None
        if self.human_verdicts is not None:
            fields["human_verdicts"] = path_fields(self.human_verdicts)
        return fields
