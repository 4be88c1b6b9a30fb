"""When each stage would start and end: the flow's own list of stages, walked without running any, on so many workers."""

import heapq
from collections.abc import Mapping
from typing import Any, NamedTuple

from flows.config import RLHFConfig
from flows.instructgpt import instructgpt


class Planned(NamedTuple):
    """One stage, in seconds from the start of the run."""

    stage: str
    group: str
    seconds: float
    begins: float
    ends: float


class Timetable:
    """Called like a ``Pipeline``; a worker takes a stage as soon as its inputs are there and it is free.

    Args:
        seconds: group, or group and a hyphen for stages of the group that are about something -> seconds.
        otherwise: of all other stages.
        workers: how many stages run side by side.
    """

    def __init__(self, seconds: Mapping[str, float], otherwise: float, workers: int) -> None:
        self._seconds, self._otherwise = seconds, otherwise
        self._free = [0.0] * workers
        self.stages: list[Planned] = []

    def __call__(self, task: Any, group: str, config: Any, about: str = "", **inputs: Planned) -> Planned:
        """Plan one stage."""
        ready = max((stage.ends for stage in inputs.values()), default=0.0)
        begins = max(ready, heapq.heappop(self._free))
        by_group = self._seconds.get(group, self._otherwise)
        seconds = self._seconds.get(f"{group}-", by_group) if about else by_group
        planned = Planned(f"{group}-{about}" if about else group, group, seconds, begins, begins + seconds)
        heapq.heappush(self._free, planned.ends)
        self.stages.append(planned)
        return planned


def planned(config: RLHFConfig, seconds: Mapping[str, float], otherwise: float) -> list[Planned]:
    """Every stage of the flow, in its order."""
    plan = Timetable(seconds, otherwise, config.runtime.max_workers)
    instructgpt(config, plan)
    return plan.stages
