"""Where a run's results go."""

import re
from pathlib import Path

from pydantic import field_validator

from flows.process.environment import BASE_FOLDER
from tasks.engine.artifacts import ArtifactStore
from tasks.engine.config import Config, one_line
from tasks.engine.shared import store_at
from tasks.engine.tracking import prepare


class TrackingConfig(Config):
    """Where results go."""

    root: str
    """Folder of the artifact store and of the local MLflow database; relative to the project, or to the current folder
    outside a clone."""
    store: str | None
    """Address at which machines share the results of stages, such as ``s3://bucket/prefix``; null keeps them below root alone."""
    mlflow_uri: str | None
    """MLflow tracking server; null keeps an SQLite database below root."""
    experiment: str
    """MLflow experiment that collects the pipeline runs."""
    run_name: str
    """Name of the pipeline's run in MLflow and Prefect."""
    skip_when_nothing_new: bool
    """Whether ``flows.rlhf`` ends at once, in the state NothingNew, when all it would do was done by a run before: no comparison
    is new, and neither is anything else. Points of a sweep and ``flows.evaluate`` always run."""
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

    @field_validator("store")
    @classmethod
    def _is_shared(cls, store: str | None) -> str | None:
        if store is None:
            return None
        if re.match(r"\w+://[^/]*@|s3://.*[?#]", store):
            raise ValueError(
                "the address holds a key or options, which logs and pages would keep; write s3://bucket/prefix, and put "
                "credentials into the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        if (
            not re.fullmatch(r"(s3://[\w.-]+|file://(?=/))(/[^*?#\[\]\x00-\x1f]*)?", store)
            or "//" in store.partition("://")[2]
        ):
            raise ValueError(
                f"found {store[:80]!r}, expected null for results below tracking.root alone, or an address to share them at: "
                "s3://bucket/prefix or file:///folder"
            )
        return store.rstrip("/")

    @field_validator("root")
    @classmethod
    def _can_hold_a_database(cls, root: str) -> str:
        if "://" in root:
            raise ValueError(
                f"found {root[:50]!r}, expected a folder of this machine; give an address to share results at as tracking.store"
            )
        if not root or re.search(r"[?#\x00-\x1f]", root):
            raise ValueError(f"found {root[:50]!r}, expected a folder whose path has no ?, # or line break")
        return root

    @property
    def folder(self) -> Path:
        """``root`` as an absolute path."""
        return (BASE_FOLDER / self.root).resolve()

    @property
    def artifacts(self) -> Path:
        """Folder of the artifact store."""
        return self.folder / "artifacts"

    def open_store(self, look_only: bool = False) -> ArtifactStore:
        """The artifact store: that folder, shared at ``store`` if it is given; ``look_only`` makes no folder, but for what is
        read from there.

        Raises:
            ArtifactError: the folder cannot be created or written.
        """
        return store_at(self.artifacts, self.store, look_only)

    @property
    def uri(self) -> str:
        """The tracking URI that MLflow gets."""
        return self.mlflow_uri or f"sqlite:///{self.folder / 'mlflow.db'}"

    def prepare(self) -> str:
        """Id of the MLflow experiment; it is made if need be, and so is a local database.

        Raises:
            PlumblineError: MLflow does not answer, or the disk refuses.
        """
        return prepare(self.uri, self.experiment, self.folder / "mlflow")
