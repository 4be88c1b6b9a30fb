"""How a process ends with the one that started it."""

import ctypes
import signal
import sys


def die_with_parent(with_signal: int = signal.SIGKILL) -> None:
    """Have the kernel end this process when the one that started it dies, even by ``kill -9`` (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").prctl(1, with_signal)
