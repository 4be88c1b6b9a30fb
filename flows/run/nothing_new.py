"""A scheduled run that would find everything ends at once, in the completed state ``NothingNew``.

Everything is found when no comparison, label, document, knob or line of code is new, and a run with this budget came to its end:
what it decided still counts. A run that was killed before its end is not skipped, even if all its stages are in the store.
"""

from typing import Any, NamedTuple, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.ask.explain import CACHED, Lookup
from flows.config import RLHFConfig
from flows.instructgpt import instructgpt
from flows.sweep.membership import is_point
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.fingerprint import dependencies
from tasks.engine.registry import finished_run_of

NOTHING_NEW = "NothingNew"
Ended = TypeVar("Ended")


class NothingNew(NamedTuple):
    """Why a run was skipped."""

    sentence: str


def skipped(config: RLHFConfig, kind: type[Ended]) -> Ended | None:
    """The state to end the flow in before anything is run; None when there is something to do, or everything is wanted.

    Args:
        config: of the whole run.
        kind: what the flow returns otherwise.
    """
    if not config.tracking.skip_when_nothing_new or is_point():
        return None
    store = config.tracking.open_store()
    lookup = Lookup(store)
    report, _ = instructgpt(config, lookup)
    if any(plan.state != CACHED for plan in lookup.futures.values()):
        return None
    run = next(
        filter(None, (finished_run_of(config.tracking.uri, key) for key in gates(store, config, report.ref))), None
    )
    if run is None:
        return None
    sentence = (
        f"no comparison is new: all {len(lookup.futures)} stages up to the report are in the store, and run {run} decided about "
        "its policy; tracking.skip_when_nothing_new=false runs it all the same"
    )
    state: State[Any] = Completed(name=NOTHING_NEW, message=sentence, data=NothingNew(sentence))
    return cast("Ended", state)  # a flow that returns a state ends in it, and its caller meets the state's data


def gates(store: ArtifactStore, config: RLHFConfig, report: ArtifactRef) -> list[str]:
    """Decisions about this report with this budget, whichever champion the policy was compared with."""
    wanted = dependencies("tasks.gate", config.evaluation.gate, {"evaluation": report})
    found = []
    for stage, fingerprint in store.artifacts():
        manifest = store.manifest(stage, fingerprint) if stage.startswith("gate-") else None
        if manifest is None or manifest.parents.get("evaluation") != report.digest:
            continue
        if all(manifest.depends_on[part] == wanted[part] for part in ("config", "source")):
            found.append(f"{stage}/{fingerprint}")
    return found
