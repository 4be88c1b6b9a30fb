"""Servers that a run talks to: whether they answer. A server of one's own is started by the run."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator

from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from flows.process.own_server import answers
from tasks.engine.findings import Finding
from tasks.engine.urls import without_password

SECONDS = 3.0


def prefect(_patient: Patient) -> Iterator[Finding]:
    """The Prefect API, where one is given."""
    url = os.environ.get("PREFECT_API_URL")
    if url and not answers(url):
        yield found(
            "error",
            "PREFECT_API_URL",
            f"no answer from {without_password(url)}",
            "a Prefect API",
            "start that server, or unset the variable: the run then starts one of its own",
        )


def mlflow(patient: Patient) -> Iterator[Finding]:
    """The MLflow server, where one is given by its address."""
    uri = patient.config.tracking.mlflow_uri
    if uri is None or not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=SECONDS) as reply:
            reason = "" if reply.status == 200 else f"status {reply.status}"
    except urllib.error.HTTPError as error:
        reason = "" if error.code in (401, 403, 404) else f"status {error.code}"  # there, and asks who it is
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
    if reason:
        yield found(
            "error",
            "tracking.mlflow_uri",
            f"no answer from {without_password(uri)} ({reason})",
            "an MLflow server",
            "start it, correct the address, or set tracking.mlflow_uri=null for a database below tracking.root",
        )
