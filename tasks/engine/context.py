"""What every task is handed besides its configuration and inputs: where things lie and who is asking.

Task runners start tasks in threads, processes and on other machines, so nothing of this may live in a global.
"""

from typing import Any

from tasks.engine.config import Config, RuntimeConfig


class StageName(Config):
    """Which stage of a run, and what it is about; written as its artifacts' folder and its MLflow run are called."""

    group: str
    """Group of ``conf/`` that configures it."""
    about: str = ""
    """The policy that is measured, what is adopted, and the like; empty where a run has one such stage."""

    def __str__(self) -> str:
        return f"{self.group}-{self.about}" if self.about else self.group


class StageContext(Config):
    """The surroundings of one pipeline run."""

    store: str
    """Root folder of the artifact store."""
    shared: str | None = None
    """Address at which results are shared with other machines; null keeps them in that folder alone."""
    tracking_uri: str
    """MLflow tracking URI; empty turns tracking off."""
    experiment_id: str
    """MLflow experiment of the pipeline run."""
    parent_run_id: str
    """MLflow run of the pipeline; the stages become its children."""
    system_metrics: bool = False
    """Whether MLflow samples the machine while a stage runs."""
    runtime: RuntimeConfig
    """Device, precision, batch limits."""
    command: str = ""
    """Command line that makes the same run; empty where there is no pipeline around the stage."""
    run_config: dict[str, Any] = {}
    """The pipeline's configuration as far as results depend on it; for pages that show it."""
