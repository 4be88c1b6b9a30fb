"""What MLflow knows of earlier results: which policy is the champion, and which artifacts a run made."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.errors import ConfigError
from tasks.engine.tracking import LONGEST_VALUE, client


def register_model(uri: str, name: str, alias: str | None, folder: Path, run_id: str, tags: Mapping[str, str]) -> str:
    """Make a model folder a version of a registered model and move the alias to it.

    A local database refers to the folder where it lies; a tracking server, which may be another machine, gets a copy as an
    artifact of the run. Weights that are a version already, with the same ``weights`` (or ``digest``) in
    its tags, are not registered twice while that version's folder is there.

    Args:
        uri: tracking URI, which is the registry's too.
        name: registered model.
        alias: such as champion; None leaves every alias where it is.
        folder: Hugging Face model folder.
        run_id: run that the version belongs to.
        tags: of the version; ``digest`` tells folders apart.

    Returns:
        The version's number.
    """
    registry = client(uri)
    try:
        registry.create_registered_model(name)
    except Exception as error:  # MLflow's, which only tracking.py may name
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
    local = uri.startswith("sqlite:")
    for known in registry.search_model_versions(f"name = '{name}'"):
        marks = "weights" if "weights" in known.tags and "weights" in tags else "digest"
        there = not local or Path(unquote(urlsplit(str(known.source)).path)).is_dir()
        same = known.tags.get(marks) == tags[marks] and there
        if same:
            if alias is not None:
                move_alias(uri, name, alias, str(known.version))
            return str(known.version)
    if not local:
        registry.log_artifacts(run_id, str(folder), folder.name)
    source = folder.as_uri() if local else f"runs:/{run_id}/{folder.name}"
    kept = {key: value[:LONGEST_VALUE] for key, value in tags.items()}
    made = registry.create_model_version(name, source=source, run_id=run_id, tags=kept)
    if alias is not None:
        move_alias(uri, name, alias, str(made.version))
    return str(made.version)


def log_model(
    uri: str,
    run_id: str,
    name: str,
    kind: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> str:
    """Show a model of a run in the experiment's Models tab, with its figures; returns its id.

    Args:
        uri: tracking URI.
        run_id: stage's run that made or found the model; it gets the figures as ``model/<name>``.
        name: as the tab shows it.
        kind: policy, reward model.
        metrics: its figures; what is not finite is left out.
        tags: where it lies, and the like.
    """
    tracking = client(uri)
    experiment = tracking.get_run(run_id).info.experiment_id
    kept = {key: value[:LONGEST_VALUE] for key, value in tags.items()}
    made = tracking.create_logged_model(experiment, name=name, source_run_id=run_id, tags=kept, model_type=kind)
    for metric, value in metrics.items():
        if math.isfinite(value):
            tracking.log_metric(run_id, f"model/{metric}", value, model_id=made.model_id)
    tracking.finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)


class Champion(NamedTuple):
    """The registered version that an alias means."""

    folder: Path
    weights: str
    """Its tag of that name; empty for a version that was registered without one."""


def champion_of(uri: str, name: str, alias: str, store: ArtifactStore | None = None) -> Champion | None:
    """The version that the alias means; None where there is none, or where its folder is gone."""
    try:
        version = client(uri).get_model_version_by_alias(name, alias)
        folder, _ = registered_version(uri, f"models:/{name}@{alias}", store)
    except ConfigError:
        return None
    except Exception as error:  # MLflow's, which only tracking.py may name
        if getattr(error, "error_code", "") not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return Champion(folder, version.tags.get("weights", ""))


def weights_of(store: ArtifactStore, policy: ArtifactRef) -> str:
    """One digest of the weights in a policy's artifact: equal for equal weights, whatever lies beside them."""
    manifest = store.manifest(policy.stage, policy.fingerprint)
    assert manifest is not None, "an artifact that was made has a manifest"
    files = {name: digest for name, digest in manifest.files.items() if name.endswith(".safetensors")}
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def move_alias(uri: str, name: str, alias: str, version: str) -> None:
    """Make a version the one that the alias means."""
    client(uri).set_registered_model_alias(name, alias, version)


def runs_of_stages(uri: str, run_id: str) -> dict[str, str]:
    """Stage -> its run below a pipeline's."""
    return {
        run.data.tags["plumbline.stage"]: str(run.info.run_id)
        for run in _below(uri, run_id)
        if "plumbline.stage" in run.data.tags
    }


def _below(uri: str, run_id: str) -> list[Any]:
    tracking = client(uri)
    experiments = [experiment.experiment_id for experiment in tracking.search_experiments()]
    return list(tracking.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000))


def finished_run_of(uri: str, key: str) -> str | None:
    """The latest pipeline run that came to its end and made or found an artifact; None where there is none."""
    tracking = client(uri)
    experiments = [experiment.experiment_id for experiment in tracking.search_experiments()]
    for stage in tracking.search_runs(experiments, f"tags.artifact = '{key}'", order_by=["attributes.start_time DESC"]):
        parent = stage.data.tags.get("mlflow.parentRunId")
        if parent is not None and tracking.get_run(parent).info.status == "FINISHED":
            return str(parent)
    return None


def artifacts_of(uri: str, run_id: str) -> dict[str, str]:
    """Stage -> key of the artifact that a pipeline run made or found; empty when there is no such run."""
    tags = [stage.data.tags for stage in _below(uri, run_id)]
    return {
        item["plumbline.stage"]: item["artifact"] for item in tags if {"plumbline.stage", "artifact"} <= item.keys()
    }


def registered_version(uri: str, address: str, store: ArtifactStore | None = None) -> tuple[Path, str | None]:
    """The folder of a registered version, and the pipeline run that made it if it says so.

    Args:
        uri: tracking URI, which is the registry's too.
        address: ``models:/<name>@<alias>`` or ``models:/<name>/<version>``.
        store: where a version lies that was registered on another machine.

    Raises:
        ConfigError: there is no such version, or the folder that it refers to is gone.
    """
    name, _, wanted = address.removeprefix("models:/").partition("@")
    registry = client(uri)
    try:
        if wanted:
            version = registry.get_model_version_by_alias(name, wanted)
        else:
            name, _, number = name.rpartition("/")
            version = registry.get_model_version(name, number)
    except Exception as error:  # MLflow's, which only tracking.py may name
        if getattr(error, "error_code", "") not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ConfigError(
            f"model: {uri} has no {address}, expected models:/<name>@<alias> or models:/<name>/<version>; look at the "
            "Models page, or give a model folder"
        ) from None
    source = str(version.source)
    if source.startswith("runs:/"):
        run_id, _, path = source.removeprefix("runs:/").partition("/")
        folder = Path(registry.download_artifacts(run_id, path))
    else:
        folder = Path(unquote(urlsplit(source).path))
    key = folder.parts[-3:-1]
    if not folder.is_dir() and store is not None and len(key) == 2 and (made := store.find(*key)) is not None:
        folder = store.open(made) / folder.name
    if not folder.is_dir():
        raise ConfigError(
            f"model: {address} refers to {folder}, which is not there; run its pipeline again, or give a folder"
        )
    return folder, version.tags.get("pipeline_run")
