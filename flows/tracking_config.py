"""Where a run's results go."""

import re
from pathlib import Path

from pydantic import field_validator

from flows.process.environment import BASE_FOLDER
from tasks.engine.config import Config, one_line


class TrackingConfig(Config):
    """Where results go."""

    root: str
    """Folder of the artifact store and of the local MLflow database; relative to the project, or to the current folder
    outside a clone."""
    mlflow_uri: str | None
    """MLflow tracking server; null keeps an SQLite database below root."""
    experiment: str
    """MLflow experiment that collects the pipeline runs."""
    run_name: str
    """Name of the pipeline's run in MLflow and Prefect."""
    system_metrics: bool
    """Whether MLflow samples processor, memory, disk, network and GPUs while a stage runs; results do not depend on it."""

    @field_validator("experiment", "run_name")
    @classmethod
    def _is_a_name(cls, text: str) -> str:
        return one_line(text)

    @field_validator("mlflow_uri")
    @classmethod
    def _is_an_address(cls, uri: str | None) -> str | None:
        if uri is not None and not re.match(r"(https?|sqlite|(postgresql|mysql|mssql)(\+\w+)?)://.|databricks\b", uri):
            raise ValueError(
                f"found {uri[:50]!r}, expected null for the database below tracking.root, or an address that begins with "
                "http://, https://, sqlite:/// or postgresql://"
            )
        return uri

    @field_validator("root")
    @classmethod
    def _can_hold_a_database(cls, root: str) -> str:
        if not root or re.search(r"[?#\x00-\x1f]", root):
            raise ValueError(f"found {root[:50]!r}, expected a folder whose path has no ?, # or line break")
        return root

    @property
    def folder(self) -> Path:
        """``root`` as an absolute path."""
        return (BASE_FOLDER / self.root).resolve()

    @property
    def store(self) -> Path:
        """Root of the artifact store."""
        return self.folder / "artifacts"

    @property
    def uri(self) -> str:
        """The tracking URI that MLflow gets."""
        return self.mlflow_uri or f"sqlite:///{self.folder / 'mlflow.db'}"
