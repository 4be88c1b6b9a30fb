"""Ranks that talk through a process group of ``torch.distributed``."""

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from tasks.engine.ranks import Ranks

T = TypeVar("T")

SMALL_BYTES = 2**20
"""Tensors of up to so many travel together: a message between processes of one machine takes about as long as a megabyte."""
FIRST_BYTES = 512
"""Of a value that travel with its size; what is longer takes a second message."""
SIZE_BYTES = 8


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
        """See ``Ranks``; small ones travel together, all messages are under way at once."""
        parcels = list(_parcels(tensors))
        with _company():
            for work in [self._group.allreduce([content]) for content, _ in parcels]:
                work.wait()
        for content, parts in parcels:
            if len(parts) > 1:
                for part, sums in zip(parts, torch.split(content, [part.numel() for part in parts]), strict=True):
                    part.copy_(sums.view_as(part))

    def gather(self, value: T) -> list[T]:
        """See ``Ranks``; the value must be one that can be pickled."""
        mine = _packed(value)
        firsts = self._blocks(_padded(mine[:FIRST_BYTES], FIRST_BYTES))
        sizes = [int(first[:SIZE_BYTES].view(torch.long)) for first in firsts]
        rest = max(sizes) - FIRST_BYTES
        seconds = self._blocks(_padded(mine[FIRST_BYTES:], rest)) if rest > 0 else [mine[:0]] * self.count
        return [
            _unpacked(torch.cat(parts)[SIZE_BYTES:size]) for *parts, size in zip(firsts, seconds, sizes, strict=True)
        ]

    def _blocks(self, mine: Tensor) -> list[Tensor]:
        """Those of all ranks, equally long."""
        found = [torch.empty_like(mine) for _ in range(self.count)]
        with _company():
            self._group.allgather([found], [mine]).wait()
        return found

    def once(self, make: Callable[[], T]) -> T:
        """See ``Ranks``."""
        value = make() if self.first else None
        return self.gather(value)[0]  # type: ignore[return-value]


def _parcels(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Sequence[Tensor]]]:
    """What is sent at once, and the tensors in it. Those that are not small go alone, without a copy."""
    together: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.nbytes > SMALL_BYTES:
            yield tensor, [tensor]
        else:
            together.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for parts in together.values():
        yield torch.cat([part.flatten() for part in parts]) if len(parts) > 1 else parts[0], parts


@contextmanager
def _company() -> Iterator[None]:
    """Tell a rank that is lost from a mistake of this one."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(str(error).splitlines()[0]) from error


def _packed(value: Any) -> Tensor:
    """Its own size, then the value."""
    content = pickle.dumps(value)
    size = (SIZE_BYTES + len(content)).to_bytes(SIZE_BYTES, sys.byteorder)
    return torch.frombuffer(bytearray(size + content), dtype=torch.uint8)


def _padded(block: Tensor, size: int) -> Tensor:
    return torch.cat([block, block.new_zeros(size - len(block))])


def _unpacked(block: Tensor) -> Any:
    return pickle.loads(block.numpy().tobytes())  # from a rank of this very stage
