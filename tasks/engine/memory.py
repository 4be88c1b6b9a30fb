"""Memory that was freed and that the process keeps for later."""

import ctypes
import sys

GIVING_BACK = {"MallocExtension_ReleaseFreeMemory": (), "malloc_trim": (0,)}
"""What returns free pages to the system, and its arguments: of tcmalloc where that is preloaded, else of glibc."""


def give_back() -> None:
    """Return what is free to the system. Else a process that trained large networks keeps their memory while it runs small
    stages, or none, and there is so much less for the one beside it."""
    if sys.platform == "linux":
        process = ctypes.CDLL(None)
        known = next((name for name in GIVING_BACK if hasattr(process, name)), None)
        if known is not None:
            getattr(process, known)(*GIVING_BACK[known])
