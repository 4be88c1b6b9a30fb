"""The stages of a run's last round, under the names that a run of one round gives them."""

import re
from collections.abc import Mapping
from typing import TypeVar

Made = TypeVar("Made")
_LATER = re.compile(r"-round_\d+$")


def of_last_round(futures: Mapping[str, Made]) -> dict[str, Made]:
    """Stage -> what its last round made; stages are in the order in which they were called for."""
    return {_LATER.sub("", stage): made for stage, made in futures.items()}
