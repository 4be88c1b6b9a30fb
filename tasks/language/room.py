"""What to do where memory is short: the same work in smaller pieces, which changes no result beyond rounding."""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from tasks.engine.errors import ModelError
from tasks.language.shards import in_step, is_divided

logger = logging.getLogger("plumbline")

Group = TypeVar("Group")
Found = TypeVar("Found")
SHORT = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says of it where it has no exception of its own: on a CPU, and in libraries below it."""


class Room:
    """How small pieces of work must be; learned when memory runs short and kept from then on.

    Args:
        network: which the work reads, if ranks may divide it: then nothing is cut, for a rank that starts again alone would
            leave the others waiting.
        idle: makes the passes of one group that holds nothing; of ranks that divide a network each makes as many as any.
        pieces: what the log calls them.
        knob: what makes them smaller from the start.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        idle: Callable[[], object] | None = None,
        pieces: str = "micro-batches",
        knob: str = "runtime.tokens_per_microbatch",
    ) -> None:
        self.halvings, self._pieces, self._knob = 0, pieces, knob
        self._network, self._idle = network, idle

    def fit(
        self,
        groups: Sequence[Group],
        run: Callable[[Sequence[Group]], Found],
        undo: Callable[[], None],
        passes: int | None = None,
    ) -> Found:
        """What ``run`` returns for the groups, or for halves of them where they do not fit.

        Args:
            groups: lists or tensors of rows, or anything with ``halves()``; their order within ``run`` must not matter.
            run: works through all groups; called again from the start when memory was short.
            undo: takes back what an interrupted ``run`` left behind, such as gradients.
            passes: for how many of the groups this rank does; for all of them by default.

        Raises:
            ModelError: one row alone does not fit, or what ranks share does not.
        """
        if self._network is not None and is_divided(self._network):
            return self._together(groups, run, len(groups) if passes is None else passes)
        for _ in range(self.halvings):
            groups = [half for group in groups for half in halved(group)]
        while True:
            short = ""
            try:
                return run(groups)
            except (RuntimeError, MemoryError) as error:
                if not is_short(error):
                    raise
                short = (str(error).splitlines() or [""])[0][:160]
            # Outside of the handler, whose traceback would keep the tensors alive.
            undo()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            smaller = [half for group in groups for half in halved(group)]
            if len(smaller) == len(groups):
                raise ModelError(
                    f"out of memory with one row at a time ({short}), expected room for one; lower the lengths "
                    "(data_prep.prompt_tokens, data_prep.response_tokens), choose a smaller model, or a machine with more memory"
                )
            groups, self.halvings = smaller, self.halvings + 1
            logger.warning(
                "memory is short: %s are cut into %d from now on; %s can be lower by as much (%s)",
                self._pieces, 2**self.halvings, self._knob, short
            )  # fmt: skip

    def _together(self, groups: Sequence[Group], run: Callable[[Sequence[Group]], Found], passes: int) -> Found:
        assert self._network is not None and self._idle is not None
        try:
            with in_step(self._network, passes, self._idle):
                return run(groups)
        except (RuntimeError, MemoryError) as error:
            if not is_short(error):
                raise
            raise ModelError(
                f"out of memory ({(str(error).splitlines() or [''])[0][:160]}), and micro-batches are not cut smaller with "
                "runtime.shard=full; lower runtime.tokens_per_microbatch, or use more processes"
            ) from error


def sampling_room() -> Room:
    """Of rows that are sampled side by side."""
    return Room(pieces="rows sampled side by side", knob="runtime.generation_batch")


def halved(group: Any) -> list[Any]:
    """Two halves of a group of rows; one of a single row."""
    if hasattr(group, "halves"):
        return list(group.halves())
    middle = len(group) // 2
    return [group[:middle], group[middle:]] if middle else [group]


def is_short(error: BaseException) -> bool:
    """Whether an exception means that memory is short."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words.lower() in str(error).lower() for words in SHORT)


def nothing() -> None:
    """To undo nothing: what reads without gradients and writes each row leaves nothing behind."""
