"""Ranks as threads of one process: the same collectives over the same sockets, without the seconds a process takes to start."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from tasks.engine.collective import Collective
from tasks.engine.ranks import among

T = TypeVar("T")


def on_ranks(count: int, run: Callable[[], T]) -> list[T]:
    """What each of so many ranks comes to; without company where there is one."""
    if count == 1:
        return [run()]
    store = dist.HashStore()

    def one(number: int) -> T:
        group = dist.ProcessGroupGloo(store, number, count, timedelta(seconds=60))
        with among(Collective(group)):
            return run()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
