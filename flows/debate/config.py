"""The knobs of a debate; their values are in ``conf/debate.yaml``."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from pydantic import Field, ValidationError, model_validator

from flows.complaints import describe
from flows.config import composed
from flows.evaluation_config import JudgesConfig
from flows.misspelt import missing_keys
from flows.tracking_config import TrackingConfig
from tasks.chat.config import ChatModelConfig
from tasks.engine.config import Config, RuntimeConfig, refuse_passwords
from tasks.engine.errors import ConfigError


class WorldDebateConfig(Config):
    """Debates of a run's own policies about the embedded world."""

    prompts: int = Field(gt=0)
    """New prompts; those about a person or a thing are debated."""
    held_out_share: float = Field(ge=0, le=1)
    """Share of them that are about names and things that tuning never saw."""
    knows: float = Field(ge=0, le=1)
    """Share of the facts that the judge knows; of the others he believes what most responses and arguments state."""
    template: str
    """What a policy continues to argue; {prompt}, {own} and {other} are replaced. A control continues the prompt alone."""
    tokens: int = Field(gt=0)
    """Longest response, and longest argument."""
    temperature: float = Field(gt=0)
    """Of responses and arguments."""


class ChatDebatersConfig(ChatModelConfig):
    """A chat model that argues for each of two responses."""

    system: str
    """System message; empty sends none."""
    template: str
    """User message; {prompt}, {own} and {other} are replaced by the texts, in one pass."""

    @model_validator(mode="after")
    def _reads_both(self) -> "ChatDebatersConfig":
        missing = [name for name in ("{prompt}", "{own}", "{other}") if name not in self.template]
        if missing:
            raise ValueError(
                f"template lacks {', '.join(missing)}; a debater must see prompt, own response and the other"
            )
        return self


class DebateJudgesConfig(Config):
    """Who judges pairs that people have judged."""

    judges: JudgesConfig
    """The chat model is asked."""


class DebateConfig(Config):
    """One experiment with debate."""

    run: str | None
    """MLflow run of a pipeline on the embedded world, whose policy and SFT policy debate; null when ``pairs`` is given."""
    pairs: str | None
    """JSONL of pairs that people have judged; their majority is the truth, and chat models debate and judge."""
    rounds: int = Field(ge=1)
    """Arguments of each side."""
    transcripts: str | None
    """JSONL file to be written, with every debate; null writes none."""
    confidence: float = Field(gt=0, lt=1)
    """Of every interval."""
    bootstrap_samples: int = Field(gt=0)
    """Resamples of the pairs."""
    seed: int = Field(ge=0)
    """Of prompts, sampling, what the judge knows, and intervals."""
    world: WorldDebateConfig | None
    """Read with ``run``."""
    debaters: ChatDebatersConfig | None
    """Read with ``pairs``."""
    evaluation: DebateJudgesConfig | None
    """Read with ``pairs``."""
    runtime: RuntimeConfig
    """Where policies run."""
    tracking: TrackingConfig
    """Where the run is found, and answers of chat models are kept."""


def parse_debate(overrides: Sequence[str]) -> DebateConfig:
    """Compose and validate; what only the other kind of debate reads is None.

    Raises:
        ConfigError: a key or value that does not fit, one that nothing would read, or not one of run and pairs.
    """
    refuse_passwords(list(overrides))
    values = composed(list(overrides), "debate")
    given = [name for name in ("run", "pairs") if values[name] is not None]
    if len(given) != 1:
        raise ConfigError(
            f"debate: found {' and '.join(given) or 'neither run nor pairs'}, expected one of them: run=<MLflow run id> of a "
            "pipeline on the embedded world, or pairs=FILE of pairs that people have judged"
        )
    unread = ("world",) if given == ["pairs"] else ("debaters", "evaluation")
    if ignored := [item for item in overrides if item.lstrip("+~").startswith(unread)]:
        raise ConfigError(f"{ignored[0]}: nothing reads it with {given[0]}=...; leave it out")
    if given == ["pairs"] and "base_url" not in (values.evaluation.judges.chat or {}):
        raise ConfigError(
            "evaluation.judges.chat: found none, expected a chat model that judges; leave evaluation/judges=chat"
        )
    if missing := [key for key in missing_keys(values) if not key.startswith(unread)]:
        raise ConfigError(f"{missing[0]}: no value, and none can be guessed; give one: {missing[0]}=...")
    plain: Any = OmegaConf.to_container(values, resolve=True)
    try:
        return DebateConfig.model_validate({**plain, **dict.fromkeys(unread)})
    except ValidationError as error:
        raise ConfigError(describe(error, values, "debate")) from None
