"""Hydra's hook at the start of a multirun.

There is none for the end: Hydra misses some ends and turns an exception into a warning, so the command line closes the sweep.
The object is sent to the processes of a launcher, so it holds nothing; what a sweep holds is in ``session``.
"""

import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from flows.ask.flags import asked
from tasks.engine.errors import PlumblineError


class SweepCallback(Callback):
    """Opens a sweep before its first point."""

    def on_multirun_start(self, config: DictConfig, **given: Any) -> None:
        """Check every point, then start what they share; for a question, only that each point's values are valid."""
        from flows.sweep import plan, session

        name = given.get("config_name") or "rlhf"
        try:
            if asked():
                plan.grid_of(config, name)
            else:
                session.start(config, name)
        except PlumblineError as error:
            print(f"\nerror: {error}", file=sys.stderr)
            sys.exit(1)  # Hydra turns any other exception of a callback into a warning
