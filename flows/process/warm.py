"""Imported by the process from which pool workers are forked, and by no other: see ``runners.WarmProcessPool``."""

import signal

# A terminal and a scheduler tell every process of a run. This one stays until the run has ended: its pipe then closes.
for asked_politely in (signal.SIGINT, signal.SIGTERM):
    signal.signal(asked_politely, signal.SIG_IGN)

# What the flow's module imports, so that a worker need not do it again; not that module, which a worker runs itself.
from flows import instructgpt  # noqa: E402
from flows.run import promotion, release  # noqa: E402, F401
from flows.sweep import point, session  # noqa: E402, F401
from tasks.engine.declared import Stage  # noqa: E402
from tasks.engine.tracking import import_mlflow  # noqa: E402

import_mlflow()
for found in [*vars(instructgpt).values(), *vars(release).values()]:
    if isinstance(found, Stage):
        found.load()
