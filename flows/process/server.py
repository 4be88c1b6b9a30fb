"""The local Prefect server of a run, as a process that only this run ends: `python -m flows.process.server PORT`.

A scheduler that takes a machine away tells all processes at once. Without its server a run could not say how it ended.
"""

import signal
import sys
from types import FrameType

import uvicorn


class RunsOwnServer(uvicorn.Server):
    """Deaf to Ctrl-C and SIGTERM; ends on SIGUSR1, and by the kernel when the run is gone."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stay."""


def main(port: int) -> None:
    """Import Prefect; serve when told to, by a line, until told to end. Whoever started it may end without having told."""
    for asked_politely in (signal.SIGINT, signal.SIGTERM):  # while Prefect is imported
        signal.signal(asked_politely, signal.SIG_IGN)
    from prefect.server.api.server import create_app

    if not sys.stdin.readline():
        return
    server = RunsOwnServer(uvicorn.Config(create_app, factory=True, host="127.0.0.1", port=port, log_level="critical"))

    def end(*_: object) -> None:
        server.should_exit = True

    signal.signal(signal.SIGUSR1, end)
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
