"""When each stage would start and end: the flow's own list of stages, walked without running any, on so many workers."""

import heapq
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from flows.config import RLHFConfig
from flows.instructgpt import instructgpt
from tasks.engine.declared import Stage


class Planned(NamedTuple):
    """One stage, in seconds from the start of the run."""

    stage: str
    group: str
    seconds: float
    begins: float
    ends: float


class StageKind(NamedTuple):
    """What the time of a stage depends on."""

    group: str
    about: str
    round: int
    divided: bool
    """Whether ``runtime.processes`` divide it."""


class Timetable:
    """Called like a ``Pipeline``; a worker takes a stage as soon as its inputs are there and it is free.

    Args:
        seconds: of a stage.
        workers: how many stages run side by side.
    """

    def __init__(self, seconds: Callable[[StageKind], float], workers: int) -> None:
        self._seconds = seconds
        self._free = [0.0] * workers
        self.stages: list[Planned] = []

    def __call__(self, task: Stage, group: str, config: Any, about: str = "", **inputs: Planned) -> Planned:
        """Timetable one stage."""
        ready = max((stage.ends for stage in inputs.values()), default=0.0)
        begins = max(ready, heapq.heappop(self._free))
        number = re.search(r"round_(\d+)$", about)
        seconds = self._seconds(StageKind(group, about, int(number[1]) if number else 1, task.divided))
        planned = Planned(f"{group}-{about}" if about else group, group, seconds, begins, begins + seconds)
        heapq.heappush(self._free, planned.ends)
        self.stages.append(planned)
        return planned


def planned(config: RLHFConfig, seconds: Callable[[StageKind], float]) -> list[Planned]:
    """Every stage of the flow, in its order."""
    plan = Timetable(seconds, config.runtime.max_workers)
    instructgpt(config, plan)
    return plan.stages
