"""The labelers that a configuration asks for, by name; the one list of them."""

from pathlib import Path
from typing import NamedTuple

from tasks.comparisons.config import ComparisonsConfig, LabelerName
from tasks.comparisons.labelers.chat import ChatLabeler
from tasks.comparisons.labelers.function import FunctionLabeler
from tasks.comparisons.labelers.labeler import Labeler
from tasks.comparisons.labelers.people import People
from tasks.comparisons.labelers.reward_model import Teacher
from tasks.comparisons.labelers.simulated import SimulatedLabelers
from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import DataError
from tasks.language.types import PreTrainedTokenizerBase
from tasks.sandbox.labelers import Panel


class Surroundings(NamedTuple):
    """What labelers need beside their configuration."""

    home: Path
    """Keeps batches and answers from one run to the next."""
    runtime: RuntimeConfig
    tokenizer: PreTrainedTokenizerBase | None
    """The policy's; None where labelers are only checked."""
    panel: Panel | None
    """The embedded world's labelers, where there is one."""
    batch_id: str
    seed: int


def labeler(name: LabelerName, config: ComparisonsConfig, around: Surroundings) -> Labeler:
    """The labeler of one name.

    Raises:
        PlumblineError: it cannot be asked.
    """
    if name == "people":
        return People(config.people, around.home, around.batch_id, config.shared_share)
    if name == "chat":
        return ChatLabeler(config.chat, around.home, around.seed)
    if name == "function":
        return FunctionLabeler(config.function)
    if name == "reward_model":
        return Teacher(config.reward_model, around.tokenizer, config, around.runtime)
    if around.panel is None:
        raise DataError(
            "comparisons.labelers contains simulated, and the data is not the embedded world's; set "
            "comparisons.labelers=[people], or another labeler"
        )
    return SimulatedLabelers(around.panel, around.seed)


def check_labelers(config: ComparisonsConfig, home: Path, runtime: RuntimeConfig) -> None:
    """Whatever can be known to fail before anything is sampled.

    Raises:
        PlumblineError: the first labeler that cannot be asked.
    """
    around = Surroundings(home, runtime, None, None, "none", 0)
    for name in config.labelers if config.samples else []:
        if name != "simulated":
            labeler(name, config, around).check()
