"""Environment that Prefect, MLflow and the tokenizers read when they are imported; import this module before them.

Everything local lives below one folder: ``PLUMBLINE_HOME``, by default ``.plumbline`` in the project, or in the current
folder where Plumbline is installed from a wheel. Whatever is set in
the environment already stays as it is.
"""

import os
from contextlib import suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""The folder with flows, tasks and conf: a clone, or the site-packages that a wheel was installed into."""
BASE_FOLDER = PROJECT if (PROJECT / "pyproject.toml").is_file() else Path.cwd()
"""What relative folders of results refer to: the clone, or the current folder where there is none."""
HOME = Path(os.environ.get("PLUMBLINE_HOME") or BASE_FOLDER / ".plumbline").resolve()


def prefect_home() -> Path:
    """Where Prefect keeps its database."""
    return Path(os.environ["PREFECT_HOME"])


def origins(port: int) -> str:
    """The addresses of a page that this machine serves."""
    return f"http://127.0.0.1:{port},http://localhost:{port}"


def closed_to_other_pages(port: int) -> dict[str, str]:
    """What keeps a page from elsewhere, open in the same browser, from starting runs at a Prefect server of this machine."""
    return {
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origins(port),
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
    }


def prepare_environment() -> Path:
    """Set the defaults and create the folders; returns the home folder."""
    defaults = {
        "PLUMBLINE_HOME": str(HOME),
        "PREFECT_HOME": str(HOME / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(HOME / "prefect" / "records"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ["PLUMBLINE_HOME"] = str(HOME)  # absolute for every reader, whatever was given
    # A proxy that serves package downloads must not be asked for the servers of this machine.
    known = ",".join(os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")).split(",")
    local = ",".join(dict.fromkeys([*(name for name in known if name), "127.0.0.1", "localhost"]))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = local
    # What killed workers held is taken away by Python's tracker, which need not be told to the user.
    ignored = [item for item in os.environ.get("PYTHONWARNINGS", "").split(",") if item]
    os.environ["PYTHONWARNINGS"] = ",".join(dict.fromkeys([*ignored, "ignore:resource_tracker:UserWarning"]))
    # Prefect does not create the parents of its home folder. Where that cannot be done, the command's probe tells why.
    with suppress(OSError):
        prefect_home().mkdir(parents=True, exist_ok=True)
    return HOME


prepare_environment()
