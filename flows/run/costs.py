"""What each road of a run took, beside what all of them share: data, start, comparisons and reward models."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from flows.roads import RoadsConfig
from flows.run.rounds import of_every_round
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.results.policies import POLICIES

SAMPLES = "rejection_sampling-samples"
"""The stage whose samples both rejection sampling and its control learn from."""
HEADINGS = ("policy", "responses drawn", "tokens drawn", "tokens learned from", "seconds", "peak MiB")


class RoadCost(NamedTuple):
    """Of one policy, from PPO's start, over all rounds; whenever its stages were made, in this run or before."""

    policy: str
    samples: float | None
    tokens_drawn: float | None
    tokens_learned: float | None
    seconds: float | None
    peak_mib: float | None
    """The largest of its stages: of the whole process on a CPU, of torch's memory on a GPU."""

    @property
    def cells(self) -> tuple[str, ...]:
        """As text, under ``HEADINGS``; empty where nothing was counted."""
        counts = [f"{value:,.0f}" if value else "" for value in (self.samples, self.tokens_drawn, self.tokens_learned)]
        seconds = "" if self.seconds is None else f"{self.seconds:,.1f}"
        return (POLICIES[self.policy].title, *counts, seconds, f"{self.peak_mib:,.0f}" if self.peak_mib else "")


def stages_of_roads(config: RoadsConfig) -> dict[str, list[str]]:
    """Policy -> the stages that only it needs; the samples count for each policy that learns from them."""
    sampled = {name: [SAMPLES, name] for name in config.sampling_runs}
    before = sampled["rejection_sampling"] if config.ppo_starts_from == "rejection_sampling" else []
    return (
        {name: [*before, name] for name in config.ppo_runs}
        | sampled
        | {name: [name] for name in config.preference_runs}
    )


def road_cost(policy: str, stages: Mapping[str, Mapping[str, float]]) -> RoadCost:
    """Add up the ``cost/`` metrics of a road's stages; memory is the largest of them."""

    def of(name: str) -> list[float]:
        return [metrics[f"cost/{name}"] for metrics in stages.values() if f"cost/{name}" in metrics]

    def total(name: str) -> float | None:
        return sum(found) if (found := of(name)) else None

    # A sum that lacks a stage is no sum.
    seconds = total("seconds") if len(of("seconds")) == len(stages) else None
    peak = max(of("peak_mib"), default=None)
    return RoadCost(policy, total("samples"), total("tokens_drawn"), total("tokens_learned"), seconds, peak)


def road_costs(store: ArtifactStore, made: Mapping[str, ArtifactRef], config: RoadsConfig) -> list[RoadCost]:
    """Of every policy that a run trained from PPO's start, in the order of the tables; ``made`` has the artifact of every stage
    of every round."""
    roads, found = stages_of_roads(config), []
    for policy in [name for name in POLICIES if name in roads]:
        metrics = {}
        for stage, artifact in of_every_round(made, roads[policy]).items():
            manifest = store.manifest(artifact.stage, artifact.fingerprint)
            metrics[stage] = manifest.metrics if manifest else {}
        found.append(road_cost(policy, metrics))
    return found


def cost_table(rows: Sequence[Sequence[str]]) -> Table:
    """The cells of several roads, for the terminal."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in HEADINGS:
        table.add_column(
            heading[0].upper() + heading[1:], justify="left" if heading == HEADINGS[0] else "right", no_wrap=True
        )
    for cells in rows:
        table.add_row(*[cell or "-" for cell in cells])
    return table
