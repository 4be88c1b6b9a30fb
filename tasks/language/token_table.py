"""Many rows of token ids, in 4 bytes an id instead of the 36 of a Python list."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar, overload

Item = TypeVar("Item")


class TokenTable(Sequence[Item], Generic[Item]):
    """Items that consist of lists of whole numbers; each is made anew when it is asked for.

    Args:
        items: read once.
        lists: of an item.
        item: that such lists make.
    """

    def __init__(
        self,
        items: Iterable[Item],
        lists: Callable[[Item], Iterable[Sequence[int]]],
        item: Callable[[list[list[int]]], Item],
    ) -> None:
        self._item = item
        self._ids, self._list_ends, self._item_ends = array("i"), array("q", [0]), array("q", [0])
        for found in items:
            for ids in lists(found):
                self._ids.extend(ids)
                self._list_ends.append(len(self._ids))
            self._item_ends.append(len(self._list_ends) - 1)

    def __len__(self) -> int:
        return len(self._item_ends) - 1

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        lists = range(self._item_ends[place], self._item_ends[place + 1])
        return self._item([self._ids[self._list_ends[at] : self._list_ends[at + 1]].tolist() for at in lists])


def of_lists(rows: Iterable[Sequence[int]]) -> "TokenTable[list[int]]":
    """Rows that are one list each."""
    return TokenTable(map(list, rows), lambda row: (row,), lambda lists: lists[0])
