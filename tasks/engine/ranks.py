"""The processes that share the work of one stage, called ranks, as the code that divides its work sees them.

Every rank runs the same story on the same data with the same random numbers and keeps all weights. What costs time,
forward and backward passes and sampling, is divided by rows; results are put together again, so that everything else
is the same code on the same numbers. A stage that is not divided has one rank: nothing is sent, and
``torch.distributed`` is not used.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
N = TypeVar("N", int, float)


class Ranks:
    """This process and those it shares a stage with; this class is the stage without company.

    Every method but ``deal`` is called by all ranks in the same order, or all of them wait for ever.
    """

    number = 0
    """Of this rank, from 0."""
    count = 1

    def deal(self, sizes: Sequence[int]) -> list[int]:
        """The rows of this rank, ascending: every row is one rank's, and each gets as many long ones as the others."""
        if self.count == 1:
            return list(range(len(sizes)))
        order = sorted(range(len(sizes)), key=lambda row: (-sizes[row], row))
        return sorted(order[self.number :: self.count])

    def add(self, *tensors: "Tensor") -> None:
        """Put the sum over all ranks into each tensor, the same bits on every rank."""

    def gather(self, value: T) -> list[T]:
        """What each rank has, in the order of the ranks."""
        return [value]

    def once(self, make: Callable[[], T]) -> T:
        """What the first rank makes; the others wait for it and get a copy."""
        return make()

    def total(self, *numbers: N) -> list[N]:
        """The sum over all ranks of each number."""
        return [sum(parts[1:], parts[0]) for parts in zip(*self.gather(numbers), strict=True)]

    def wait(self) -> None:
        """Until every rank is here."""
        self.gather(None)

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes, decides and reports."""
        return self.number == 0


_ALONE = Ranks()
_HERE: ContextVar[Ranks] = ContextVar("ranks", default=_ALONE)


def here() -> Ranks:
    """The ranks of the stage that this thread runs."""
    return _HERE.get()


@contextmanager
def among(ranks: Ranks) -> Iterator[None]:
    """Inside this context the stage is shared by ``ranks``."""
    before = _HERE.set(ranks)
    try:
        yield
    finally:
        _HERE.reset(before)
