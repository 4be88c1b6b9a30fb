"""Ranks that talk through a process group of ``torch.distributed``."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from tasks.engine.ranks import Ranks

T = TypeVar("T")


class RankLost(RuntimeError):
    """Another rank has ended, so that there is nobody to wait for."""


class Collective(Ranks):
    """The members of a process group.

    Args:
        group: takes tensors of the CPU, and those of the GPU if there is one.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group, self.number, self.count = group, group.rank(), group.size()

    def add(self, *tensors: Tensor) -> None:
        """See ``Ranks``; all are under way at once."""
        with _company():
            for work in [self._group.allreduce([tensor]) for tensor in tensors]:
                work.wait()

    def gather(self, value: T) -> list[T]:
        """See ``Ranks``; the value must be one that can be pickled."""
        mine = _packed(value)
        sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.count)]
        with _company():
            self._group.allgather([sizes], [torch.tensor([len(mine)])]).wait()
            width = max(int(size) for size in sizes)
            parts = [torch.empty(width, dtype=torch.uint8) for _ in range(self.count)]
            padded = torch.cat([mine, mine.new_zeros(width - len(mine))])
            self._group.allgather([parts], [padded]).wait()
        return [_unpacked(part[: int(size)]) for part, size in zip(parts, sizes, strict=True)]

    def once(self, make: Callable[[], T]) -> T:
        """See ``Ranks``."""
        value = make() if self.first else None
        return self.gather(value)[0]  # type: ignore[return-value]


@contextmanager
def _company() -> Iterator[None]:
    """Tell a rank that is lost from a mistake of this one."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(str(error).splitlines()[0]) from error


def _packed(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def _unpacked(block: Tensor) -> Any:
    return pickle.loads(block.numpy().tobytes())  # from a rank of this very stage
