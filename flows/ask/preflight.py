"""Before any expensive work: the doctor's checks, and a refusal of what cannot work."""

import logging
from collections.abc import MutableSet

from flows.ask.doctor.patient import Patient
from flows.ask.doctor.table import examine
from flows.config import RLHFConfig
from tasks.engine.errors import PlumblineError

logger = logging.getLogger("plumbline")
_passed: set[str] = set()
TOLD: set[str] = set()
"""Warnings of the sweep that this process is in, which every point would repeat."""


def check(config: RLHFConfig, told: MutableSet[str] | None = None) -> None:
    """Refuse a run that cannot work, and warn of what will disappoint.

    Args:
        config: of the run.
        told: warnings that are not repeated; new ones are added.

    Raises:
        PlumblineError: everything that is wrong, each with its remedy.
    """
    key = config.model_dump_json()
    if key in _passed:  # by the command line, a moment ago
        _passed.remove(key)
        return
    found = [finding for findings in examine(Patient(config)).values() for finding in findings]
    if errors := [str(finding) for finding in found if finding.severity == "error"]:
        raise PlumblineError("\n".join(errors))
    told = set() if told is None else told
    for sentence in (str(finding) for finding in found if finding.severity == "warning"):
        if sentence not in told:
            logger.warning("%s", sentence)
            told.add(sentence)


def check_ahead(config: RLHFConfig) -> None:
    """``check`` by the command line; the flow, which a Prefect worker may call without one, then does not check again.

    Raises:
        PlumblineError: everything that is wrong, each with its remedy.
    """
    check(config)
    _passed.add(config.model_dump_json())
