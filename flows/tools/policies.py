"""From what a person calls a policy to its model folder: a folder, a run of the pipeline, or a registered version."""

from pathlib import Path
from typing import NamedTuple

from flows.run.rounds import of_last_round
from flows.tracking_config import TrackingConfig
from tasks.engine.errors import ArtifactError, ConfigError
from tasks.engine.registry import artifacts_of, registered_version
from tasks.results.policies import names_of

POLICY = "policy"
"""Folder of the model in an artifact."""
BASELINES = ["sft_selected", "sft"]


class NamedPolicy(NamedTuple):
    """A policy, and the SFT policy of the run that made it where that is known."""

    folder: Path
    sft: Path | None


def find_policy(name: str, tracking: TrackingConfig) -> NamedPolicy:
    """The model folder that is meant.

    Args:
        name: model folder, MLflow run of a pipeline, or ``models:/<name>@<alias>``.
        tracking: where store and MLflow are.

    Raises:
        ConfigError: it is none of these.
        ArtifactError: the store has lost the run's policy.
    """
    given = Path(name).expanduser()
    for folder in (given, given / POLICY):
        if (folder / "config.json").is_file():
            return NamedPolicy(folder, _sft_behind(folder, tracking))
    if name.startswith("models:/"):
        folder, run_id = registered_version(tracking.uri, name, tracking.open_store())
        made = of_last_round(artifacts_of(tracking.uri, run_id)) if run_id else {}
        return NamedPolicy(folder, _folder(made, BASELINES, tracking, needed=False))
    made = of_last_round(artifacts_of(tracking.uri, name)) if "/" not in name else {}
    policy = _folder(made, names_of("own", "rival"), tracking)
    if policy is None:
        raise ConfigError(
            f"model: found no model folder, pipeline run or registered model {name!r} (tracking {tracking.uri}), expected "
            "a Hugging Face folder, the id that MLflow shows for a run, or models:/plumbline-policy@champion"
        )
    return NamedPolicy(policy, _folder(made, BASELINES, tracking, needed=False))


def _sft_behind(folder: Path, tracking: TrackingConfig) -> Path | None:
    """The SFT policy that a policy of the store was made from."""
    place = folder.resolve().parent
    if folder.name != POLICY or place.parent.parent != tracking.artifacts.resolve():
        return None
    store = tracking.open_store()
    manifest = store.manifest(place.parent.name, place.name)
    parents = manifest.parents.values() if manifest is not None else ()
    for stage, fingerprint in store.copies():
        if stage in BASELINES and (ref := store.find(stage, fingerprint)) and ref.digest in parents:
            return store.folder(stage, fingerprint) / POLICY
    return None


def _folder(made: dict[str, str], stages: list[str], tracking: TrackingConfig, needed: bool = True) -> Path | None:
    """The folder of the first of these stages that the run has."""
    stage = next((stage for stage in stages if stage in made), None)
    if stage is None:
        return None
    store = tracking.open_store()
    ref = store.find(*made[stage].split("/"))
    if ref is None:
        if not needed:
            return None
        raise ArtifactError(f"{made[stage]} is not in {store.root}; run that pipeline again to rebuild it")
    return store.open(ref) / POLICY
