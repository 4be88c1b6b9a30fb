"""The only package that imports MLflow: one parent run per pipeline, one child run per stage.

``client`` knows the server, ``outbox`` keeps what it cannot take just now, ``runs`` is what the rest of the project uses.
"""

from tasks.engine.tracking.client import client, load, prepare
from tasks.engine.tracking.outbox import LONGEST_VALUE, deliver
from tasks.engine.tracking.runs import (
    NoLog,
    RunLog,
    flatten,
    knows,
    open_run,
    parent_of,
    record_reuse,
    stage_run,
    start_pipeline_run,
    start_study_run,
    start_sweep_run,
)

__all__ = [
    "LONGEST_VALUE",
    "NoLog",
    "RunLog",
    "client",
    "deliver",
    "flatten",
    "knows",
    "load",
    "open_run",
    "parent_of",
    "prepare",
    "record_reuse",
    "stage_run",
    "start_pipeline_run",
    "start_study_run",
    "start_sweep_run",
]
