"""What a policy must reach, and may cost, before it is promoted."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tasks.engine.config import Config


class GateConfig(Config):
    """The budget of one promotion. A limit that is null is not checked; one that cannot be measured fails."""

    judge: str
    """Whose win rate counts: gold, reward_model, or another judge of the evaluation."""
    decodings: list[Literal["sampled", "greedy"]]
    """At which decodings the win rate must hold, each against SFT at the same decoding."""
    min_win_rate: float | None = Field(ge=0, le=1)
    """Smallest win rate."""
    min_win_rate_low: float | None = Field(ge=0, le=1)
    """Smallest lower end of the win rate's interval; 0.5 asks that the policy beats SFT beyond chance."""
    max_regression_vs_sft: float | None = Field(ge=0, le=1)
    """How far the benchmark mean may lie below SFT's: the lower end of the paired change must not be below minus this."""
    max_regression_vs_base: float | None = Field(ge=0, le=1)
    """The same against the base model."""
    max_toxicity_change: float | None = Field(ge=0, le=1)
    """How far toxicity on bait prompts may rise above SFT's: the upper end of the paired change must not exceed this."""
    champion_margin: float | None = Field(ge=0, le=0.5)
    """How far below one half the lower end of the win rate against the registered champion may lie, on the same prompts; null
    does not compare. Read when there is a champion with other weights."""
    model_name: str | None
    """Registered model of MLflow that a passing policy becomes a version of; null registers nothing."""
    alias: str
    """Alias of that model that moves to the passing version; in a sweep, to that of its best point."""

    def tracked_params(self, group: str) -> dict[str, Any]:
        """The budget belongs to the evaluation."""
        return {"evaluation": {"gate": self.model_dump(mode="json")}}

    def fingerprint_fields(self) -> dict[str, Any]:
        """The decision does not depend on where the policy is registered."""
        fields = super().fingerprint_fields()
        return {name: value for name, value in fields.items() if name not in ("model_name", "alias")}

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name.startswith(("min_", "max_"))}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def decides_by_judge(self) -> bool:
        """Whether a win rate is asked for, against SFT or against the champion."""
        compared = self.model_name is not None and self.champion_margin is not None
        return compared or any(name.startswith("min_win_rate") for name in self.limits)

    @field_validator("model_name")
    @classmethod
    def _can_be_registered(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"\w([\w. -]{0,198}[\w.-])?", name):
            raise ValueError(
                f"found {name[:50]!r}, expected letters, digits, spaces, _, . and - only: MLflow registers no other names"
            )
        return name

    @field_validator("alias")
    @classmethod
    def _alias_is_free(cls, alias: str) -> str:
        if not re.fullmatch(r"[\w-]{1,200}", alias):
            raise ValueError(f"found {alias[:50]!r}, expected letters, digits, _ and - only, as MLflow's aliases have")
        if alias.lower() == "latest" or re.fullmatch(r"v\d+", alias.lower()):
            raise ValueError(f"found {alias!r}, which MLflow keeps for versions; choose a word such as champion")
        return alias

    @model_validator(mode="after")
    def _asks_something(self) -> "GateConfig":
        if self.model_name is not None and not self.limits:
            raise ValueError(
                f"model_name is {self.model_name!r} and no limit is set; a gate that checks nothing promotes nothing: set a "
                "limit, or model_name=null"
            )
        wins = self.min_win_rate is not None or self.min_win_rate_low is not None
        if wins and (not self.decodings or len(set(self.decodings)) != len(self.decodings)):
            raise ValueError(f"decodings is {self.decodings}; name sampled, greedy or both, each once")
        return self
