"""What ranks send one another, and in how many messages."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.engine import collective
from tasks.engine.collective import Collective, RankLost
from tasks.engine.ranks import here
from tests.unit.ranks import on_ranks


class Counting:
    """A process group that counts its messages."""

    def __init__(self, group: Any) -> None:
        self.group, self.sent = group, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        if name in ("allreduce", "allgather"):
            self.sent[name] += 1
        return getattr(self.group, name)


def counted(ranks: Any) -> Counter[str]:
    assert isinstance(ranks, Collective)
    ranks._group = Counting(ranks._group)  # type: ignore[assignment]
    return ranks._group.sent  # type: ignore[attr-defined,no-any-return]


def weights(number: int) -> list[Tensor]:
    """Whole numbers, so that sums are exact; of several kinds, sizes and shapes."""
    generator = torch.Generator().manual_seed(number)

    def drawn(*shape: int) -> Tensor:
        return torch.randint(-9, 9, shape, generator=generator).float()

    many = [drawn(3, 4), drawn(5), drawn(), drawn(0), drawn(40, 40), drawn(4, 3).T]
    return [*many, drawn(6).double(), drawn(2, 2).int(), drawn(3).double()]


@pytest.mark.parametrize("small", [0, 100, 2**20])
def test_every_tensor_has_the_sum_and_small_ones_travel_together(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collective, "SMALL_BYTES", small)

    def added() -> tuple[list[Tensor], list[bool], Counter[str]]:
        mine = weights(here().number)
        if not small:
            mine = [tensor.contiguous() for tensor in mine]
        sent, places = counted(here()), [tensor.data_ptr() for tensor in mine]
        here().add(*mine)
        return mine, [tensor.data_ptr() == place for tensor, place in zip(mine, places, strict=True)], sent

    expected = [sum(parts[1:], parts[0]) for parts in zip(*(weights(number) for number in range(3)), strict=True)]
    for sums, in_place, sent in on_ranks(3, added):
        assert all(map(torch.equal, sums, expected))
        assert all(in_place)
        assert sent == {"allreduce": {0: 9, 100: 4, 2**20: 3}[small]}


def test_ranks_gather_short_and_long_values_of_unequal_size() -> None:
    first = collective.FIRST_BYTES - collective.SIZE_BYTES

    def value(number: int) -> bytes:
        return bytes([number]) * [1, first - 30, first, 5 * first][number]

    def gathered() -> tuple[list[bytes], list[int], Counter[str], Counter[str]]:
        sent = counted(here())
        values = here().gather(value(here().number))
        with_long = sent.copy()
        sent.clear()
        return values, here().gather(here().number), with_long, sent

    for values, numbers, with_long, short in on_ranks(4, gathered):
        assert values == [value(number) for number in range(4)]
        assert numbers == [0, 1, 2, 3]
        assert (with_long, short) == ({"allgather": 2}, {"allgather": 1})


def test_what_is_done_once_is_done_by_the_first_rank_and_told_to_all() -> None:
    def once() -> tuple[str, list[int]]:
        asked: list[int] = []

        def make() -> str:
            asked.append(here().number)
            return f"said by {here().number}"

        return here().once(make), asked

    assert on_ranks(3, once) == [("said by 0", [0]), ("said by 0", []), ("said by 0", [])]


def test_a_rank_that_has_ended_is_told_from_a_mistake() -> None:
    class Alone:
        def rank(self) -> int:
            return 0

        def size(self) -> int:
            return 2

        def allreduce(self, tensors: list[Tensor]) -> Any:
            raise RuntimeError("Connection closed by peer\nand where")

    with pytest.raises(RankLost, match=r"^Connection closed by peer$"):
        Collective(Alone()).add(torch.ones(1))  # type: ignore[arg-type]
