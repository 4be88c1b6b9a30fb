"""The memory allocator of the processes that stages run in.

Passes over long rows take and return tensors of megabytes all the time. The C library's own allocator looks for room and
gives pages back to the system, while the other threads wait; tcmalloc keeps them. Results are the same bytes.
"""

import ctypes.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("tcmalloc_minimal", "tcmalloc")
"""Of gperftools, without and with its profilers."""
HINT = "libtcmalloc-minimal4"
"""Debian's and Ubuntu's package."""


def preloaded() -> str | None:
    """What stages preload: the name that the dynamic linker knows tcmalloc by; None where it is not installed, or this is not
    Linux."""
    if sys.platform != "linux":
        return None
    return next((library for name in NAMES if (library := ctypes.util.find_library(name))), None)


@contextmanager
def tcmalloc() -> Iterator[None]:
    """What is started inside this context allocates with tcmalloc, where it is installed. Whoever preloads an allocator of his
    own keeps that."""
    before = os.environ.get("LD_PRELOAD")
    library = preloaded()
    if library is None or "malloc" in (before or ""):
        yield
        return
    os.environ["LD_PRELOAD"] = " ".join(filter(None, (before, library)))
    try:
        yield
    finally:
        os.environ.pop("LD_PRELOAD")
        if before is not None:
            os.environ["LD_PRELOAD"] = before
