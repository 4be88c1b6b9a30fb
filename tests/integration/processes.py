"""What the tests do in a process before it becomes the program under test."""

import signal


def hears_ctrl_c() -> None:
    """A shell's background job is deaf to Ctrl-C, and so is all that it starts, the tests included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
