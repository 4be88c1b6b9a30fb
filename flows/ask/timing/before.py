"""How long responses were in earlier runs from the same start: what the store measured is better than any guess."""

from flows.config import RLHFConfig
from flows.instructgpt import instructgpt
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.config import Config
from tasks.engine.context import StageName
from tasks.engine.declared import Stage
from tasks.engine.fingerprint import dependencies, fingerprint


class StoredStages:
    """Called like a ``Pipeline``; returns what the store has of each stage, None where it would have to be made."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self.stages: dict[str, ArtifactRef | None] = {}

    def __call__(
        self, task: Stage, group: str, config: Config, about: str = "", **inputs: ArtifactRef | None
    ) -> ArtifactRef | None:
        """Look up one stage, whose inputs must be there."""
        stage, found = str(StageName(group=group, about=about)), None
        known = {name: ref for name, ref in inputs.items() if ref is not None}
        if known.keys() == inputs.keys():
            found = self._store.find(
                stage, fingerprint(dependencies(task.package, config, known, self._store.root.parent))
            )
        self.stages[stage] = found
        return found


def written_before(config: RLHFConfig) -> float | None:
    """Mean tokens of what was sampled from the run's own PPO-init, by PPO and by rejection sampling, under the same limit; None
    where the store has no such result.
    """
    if not config.tracking.artifacts.is_dir():
        return None
    store = config.tracking.open_store()
    found = StoredStages(store)
    instructgpt(config, found)
    start = found.stages.get("ppo_init", found.stages["sft"])
    if start is None:
        return None
    samples = tokens = 0.0
    for manifest in (store.manifest(*key) for key in store.artifacts()):
        if manifest is None or "cost/samples" not in manifest.metrics:
            continue
        limit = manifest.depends_on["config"].get("response_tokens")
        if manifest.parents.get("ppo_init") == start.digest and limit == config.ppo.response_tokens:
            samples += manifest.metrics["cost/samples"]
            tokens += manifest.metrics["cost/tokens_drawn"]
    return tokens / samples if samples else None
