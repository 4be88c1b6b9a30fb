"""A stage as the order of stages knows it: what it is called, what it asks for, where its story is.

Each stage's package declares its own, and whoever imports it imports nothing else: a question about a run needs no torch.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from threading import Lock
from typing import Any, NamedTuple

_ONE_AT_A_TIME = Lock()


class Stage(NamedTuple):
    """One declared stage."""

    title: str
    """What the Prefect page shows."""
    story: str
    """``module:function``; the function fills ``shop.folder`` and returns the stage's final metrics."""
    cpus: int = 1
    """Cores that the stage asks of a Ray or Dask runner."""
    gpus: int = 0
    """GPUs that it asks for when ``runtime.device`` is a CUDA device; a divided stage asks for so many a rank."""
    divided: bool = False
    """Whether ``runtime.processes`` ranks tell the story together."""

    @property
    def name(self) -> str:
        """Of the function."""
        return self.story.partition(":")[2]

    @property
    def module(self) -> str:
        """The story's."""
        return self.story.partition(":")[0]

    @property
    def package(self) -> str:
        """The stage: its source, the configuration and the inputs are what the result depends on."""
        return self.module.rpartition(".")[0]

    def load(self) -> Callable[[Any, Any], Mapping[str, float]]:
        """The story, whose modules are imported now; stages that run in threads wait for each other."""
        with _ONE_AT_A_TIME:
            found: Callable[[Any, Any], Mapping[str, float]] = getattr(import_module(self.module), self.name)
        return found
