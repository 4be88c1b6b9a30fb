"""What a run would do and why: `python -m flows.rlhf --explain ppo.beta=0.05`.

The flow's own list of stages is walked with a ``Lookup`` in place of a ``Pipeline``. Each stage's fingerprint is computed as
it would be, and if the store does not have it, it is compared with those of the earlier results of that stage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from flows import terminal
from flows.config import RLHFConfig
from flows.instructgpt import instructgpt
from flows.run.release import decision_in, gate_stage, release_stage
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.checkpoint import latest_step
from tasks.engine.config import Config
from tasks.engine.context import StageName
from tasks.engine.declared import Stage
from tasks.engine.fingerprint import dependencies, fingerprint, source_digests
from tasks.engine.tracking import flatten

CACHED, WILL_RUN = "cached", "will run"
SHOWN = 8
"""Differences named per stage; the rest is counted."""
AGAIN = "one that only waits for its inputs is taken from the store after all if they come out with the bytes they had"


@dataclass(frozen=True)
class Foreseen:
    """What would happen to one stage."""

    stage: str
    state: str
    """``cached`` or ``will run``."""
    why: tuple[str, ...]
    """Reasons, the first of which decides; empty when cached."""
    ref: ArtifactRef | None
    """The result that would be used; None when it has to be made first."""


class Lookup:
    """Called like a ``Pipeline``; looks up what each stage would do instead of running it."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store
        self.futures: dict[str, Foreseen] = {}
        """Stage -> its plan; named as in ``Pipeline``."""
        self._earlier: dict[str, list[tuple[float, dict[str, Any]]]] = {}

    def __call__(self, task: Stage, group: str, config: Config, about: str = "", **inputs: Foreseen) -> Foreseen:
        """Plan one stage; later stages take the plan as their input."""
        stage = str(StageName(group=group, about=about))
        known = {name: plan.ref for name, plan in inputs.items() if plan.ref is not None}
        depends_on = dependencies(task.package, config, known, self.store.root.parent)
        awaited = {name: plan.stage for name, plan in inputs.items() if plan.ref is None}
        if "world" in awaited:  # its digest is not known yet; that the stage runs the world's source is
            depends_on["source"] = source_digests(task.package)
        made = "" if awaited else fingerprint(depends_on)
        found = self.store.find(stage, made) if made else None
        damage = self.store.damage(stage, made) if made and self.store.folder(stage, made).is_dir() else None
        if found is not None and damage is None:
            plan = Foreseen(stage, CACHED, (), found)
        else:
            why = list(self._reasons(stage, _spelling(config, group), depends_on, awaited, damage))
            if made and (step := latest_step(self.store.root / "checkpoints" / stage / made)):
                why.append(f"goes on from its checkpoint of step {step}")
            plan = Foreseen(stage, WILL_RUN, tuple(why), None)
        self.futures[stage] = plan
        return plan

    def _reasons(
        self,
        stage: str,
        spelled: dict[str, str],
        depends_on: dict[str, Any],
        awaited: dict[str, str],
        damage: str | None,
    ) -> Iterator[str]:
        for name, made_by in awaited.items():
            yield f"input {name} will be made again" + (f" by {made_by}" if name != made_by else "")
        if damage is not None:
            yield f"the result is damaged: {damage}"
            return
        # With an input awaited, results that differ in nothing else are the nearest ones.
        differences = [
            (list(difference(earlier, depends_on, set(awaited), spelled)), -when)
            for when, earlier in self._earlier_results(stage)
        ]
        if not differences:
            yield "no earlier result"
            return
        nearest, _ = min(differences, key=lambda found: (len(found[0]), found[1]))
        yield from nearest[:SHOWN]
        if len(nearest) > SHOWN:
            yield f"and {len(nearest) - SHOWN} more differences"
        if not nearest and not awaited:
            yield "the result is no longer in the store"

    def _earlier_results(self, stage: str) -> list[tuple[float, dict[str, Any]]]:
        """When each result of a stage was made, and what it depends on."""
        if stage not in self._earlier:
            found = []
            for name, print_of_stage in self.store.artifacts():
                manifest = self.store.manifest(name, print_of_stage) if name == stage else None
                if manifest is not None:
                    found.append((self.store.made_at(stage, print_of_stage), manifest.depends_on))
            self._earlier[stage] = found
        return self._earlier[stage]


def difference(
    old: Mapping[str, Any], new: Mapping[str, Any], awaited: set[str], spelled: Mapping[str, str]
) -> Iterator[str]:
    """What changed between the dependencies of two results, in words, one part of the key each.

    Args:
        old: ``dependencies`` of the earlier result.
        new: those of the planned one.
        awaited: inputs whose digest is not known yet; they are not compared.
        spelled: path in the configuration -> how it is spelled on the command line.
    """
    before, after = _leaves(old["config"]), _leaves(new["config"])
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield f"{spelled.get(path, path)} {before.get(path, '(none)')} -> {after.get(path, '(none)')}"
    for name in sorted((old["inputs"].keys() | new["inputs"].keys()) - awaited):
        if old["inputs"].get(name) != new["inputs"].get(name):
            yield f"input {name} is another one" if name in old["inputs"] else f"input {name} is new"
    for module in sorted(old["source"].keys() | new["source"].keys()):
        if old["source"].get(module) != new["source"].get(module):
            how = "changed" if module in old["source"] and module in new["source"] else "added or removed"
            yield f"source {module} {how}"


def _leaves(config: Mapping[str, Any]) -> dict[str, str]:
    """Path -> value; digests are shortened."""
    return {
        path: value[:12] if len(value) == 64 and set(value) <= set("0123456789abcdef") else value
        for path, value in flatten(config).items()
    }


def _spelling(config: Config, group: str) -> dict[str, str]:
    """Path below the stage's own fields -> the name that the command line knows, wherever that is unambiguous."""
    names = list(flatten(config.tracked_params(group)))
    spelled = {}
    for path in flatten(config.fingerprint_fields()):
        matching = [name for name in names if name == path or name.endswith(f".{path}")]
        if len(matching) == 1:
            spelled[path] = matching[0]
    return spelled


def plan_of(config: RLHFConfig) -> list[Foreseen]:
    """What each stage of the flow would do, in the flow's order.

    Raises:
        ArtifactError: the store cannot be read.
    """
    lookup = Lookup(config.tracking.open_store(look_only=True))
    report, policy = instructgpt(config, lookup)
    gate = gate_stage(lookup, config, report)
    if gate.ref is None or decision_in(lookup.store, gate.ref).passed:  # what is not known yet may pass
        release_stage(lookup, config, report, policy, gate)
    return list(lookup.futures.values())


def explain(config: RLHFConfig) -> None:
    """Print, for every stage, whether it would run and why; runs nothing."""
    plans = plan_of(config)
    console = terminal.console()
    if console.is_terminal:
        table = Table("Stage", "", "Why")
        for plan in plans:
            table.add_row(
                plan.stage, Text(plan.state, "green" if plan.state == CACHED else "yellow"), "\n".join(plan.why)
            )
        console.print(table)
    else:
        width = max(len(plan.stage) for plan in plans) + 2
        for plan in plans:
            print(f"{plan.stage:<{width}}{plan.state:<10}{'; '.join(plan.why)}".rstrip())
    count = sum(plan.state == WILL_RUN for plan in plans)
    print(f"{count} of {len(plans)} stages will run" + (f"; {AGAIN}" if count else ""))
