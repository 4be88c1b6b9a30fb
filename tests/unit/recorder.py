"""A CUDA graph without a GPU: operators are recorded with the very memory they read and wrote, and done again there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
CANNOT = (ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.is_nonzero.default, ATEN.lift_fresh.default)
"""What a CUDA graph cannot contain: results that the program waits for, and numbers that it brings along."""


class Recording(TorchDispatchMode):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CANNOT:
            raise RuntimeError(f"{func} is not permitted when a stream is capturing")
        found = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        for func, args, kwargs, found in self.done:
            if any(result.alias_info is not None and not result.alias_info.is_write for result in func._schema.returns):
                continue  # a view, of memory that is filled anew
            again = func(*args, **kwargs)
            if not func._schema.is_mutable:
                for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


def record(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    with Recording() as recording:
        states = step()
    states.fill_(torch.nan)  # a recording has not run

    def again() -> Tensor:
        with torch.no_grad():
            recording.replay()
        return states

    return again
