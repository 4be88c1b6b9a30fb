"""Which of the stages that a run made count: those of its last round, and the data that they read.

Whoever looks for a stage by its name asks here: in a run of several rounds the plain name is that of the first.
"""

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

Made = TypeVar("Made")
_LATER = re.compile(r"-round_(\d+)$")


def without_round(stage: str) -> str:
    """The name that a run of one round gives a stage."""
    return _LATER.sub("", stage)


def of_last_round(made: Mapping[str, Made]) -> dict[str, Made]:
    """Stage -> what its last round made, under the names that a run of one round gives them."""
    return {without_round(stage): made[stage] for stage in sorted(made, key=_round)}


def of_every_round(made: Mapping[str, Made], stages: Collection[str]) -> dict[str, Made]:
    """Stage -> what each of these made, round by round and under its own name."""
    return {stage: made[stage] for stage in sorted(made, key=_round) if without_round(stage) in stages}


def data_of(made: Mapping[str, Made]) -> Made:
    """The data that training and evaluation read: with the revisions of a chat model, where the run made some."""
    return made["revise"] if "revise" in made else made["data_prep"]


def _round(stage: str) -> int:
    later = _LATER.search(stage)
    return int(later[1]) if later else 1
