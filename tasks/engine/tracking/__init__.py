"""The only package that imports MLflow: one parent run per pipeline, one child run per stage.

``server`` knows where it is, ``outbox`` keeps what it cannot take just now, ``runs`` is what the rest of the project uses.
"""

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
from tasks.engine.tracking.server import client, import_mlflow, prepare

__all__ = [
    "LONGEST_VALUE",
    "NoLog",
    "RunLog",
    "client",
    "deliver",
    "flatten",
    "import_mlflow",
    "knows",
    "open_run",
    "parent_of",
    "prepare",
    "record_reuse",
    "stage_run",
    "start_pipeline_run",
    "start_study_run",
    "start_sweep_run",
]
