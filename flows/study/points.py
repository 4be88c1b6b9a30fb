"""Which pipelines the study needs, and in which order."""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from flows.study.config import StudyConfig

Kind = Literal["policy", "reward_model", "sft_epochs"]


class Point(BaseModel):
    """One setting with one seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    """policy is a whole pipeline; reward_model ends there; sft_epochs scores every epoch of a long SFT."""
    setting: str
    """What the finding calls it: the same for every seed."""
    seed: int
    overrides: tuple[str, ...]
    """Of conf/rlhf.yaml."""
    epochs: int = 0
    """Of the long SFT; 0 for other kinds."""
    row: str = ""
    """Policy of the pipeline that the numbers are of; empty: its own."""

    @property
    def name(self) -> str:
        """For people, and unique in a study."""
        return f"{self.setting} seed={self.seed}"


def policy_setting(beta: float, gamma: float) -> str:
    """How a policy of the sweeps is called."""
    return f"beta={beta:g} gamma={gamma:g}"


def reward_setting(prompts: int, element: str) -> str:
    """How a reward model is called; ``element`` is prompt or pair."""
    return f"comparisons={prompts} element={element}"


def sft_setting(epochs: int) -> str:
    """How the long SFT is called."""
    return f"sft epochs={epochs}"


def road_setting(policy: str) -> str:
    """How a policy is called that is trained beside PPO."""
    return f"road={policy}"


UNBRAKED = "over-optimised"
"""Setting: PPO at so small a price of KL that gold falls."""
BEST_OF_BRAKED = f"{UNBRAKED} selection=gold"
"""The same, and the iteration that gold likes best is shipped."""


def braked_setting(action: str) -> str:
    """How an over-optimised run with a brake is called."""
    return f"{UNBRAKED} brake={action}"


def healthy_setting(action: str) -> str:
    """How the reference policy with a brake is called."""
    return f"healthy brake={action}"


def rows_of_roads(roads: Sequence[str]) -> dict[str, str]:
    """Policy of the tables -> the rival that brings it; rejection sampling brings its control."""
    found = {road: road for road in roads}
    return found | ({"random_control": "rejection_sampling"} if "rejection_sampling" in roads else {})


def points_of(config: StudyConfig) -> list[Point]:
    """Every point once, each setting with all seeds before the next setting, so that a part of the study is whole.

    The order is that of what a reader wants first: the ends of the gamma sweep and of over-optimisation, reward models,
    SFT, the insides of the sweeps, single choices.
    """
    grid, reference = config.grid, config.reference
    ends = []
    if grid.gammas or grid.betas_without_ptx or grid.betas_with_ptx or grid.roads or grid.brakes or grid.ablations:
        ends.append((reference.beta, reference.gamma))
    if grid.roads:
        ends.append((reference.beta, 0.0))
    if grid.gammas:
        ends += [(reference.beta, 0.0), (reference.beta, grid.gammas[-1])]
    if grid.betas_without_ptx:
        ends.append((grid.overoptimised_beta, 0.0))
    insides = [
        *((reference.beta, gamma) for gamma in grid.gammas),
        *((beta, 0.0) for beta in grid.betas_without_ptx),
        *((beta, reference.gamma) for beta in grid.betas_with_ptx),
    ]
    drafts = [
        *(_policy(beta, gamma) for beta, gamma in ends),
        *(_road(policy, road, config) for policy, road in rows_of_roads(grid.roads).items()),
        *_brakes(config),
        *(_reward(prompts, "prompt", grid.pairs_per_step) for prompts in grid.comparison_prompts),
        *(_reward(prompts, "pair", grid.pairs_per_step) for prompts in grid.pair_prompts),
        *([PointDraft("sft_epochs", sft_setting(grid.sft_epochs), [])] if grid.sft_epochs else []),
        *(_policy(beta, gamma) for beta, gamma in insides),
        *(_ablation(name, changes, config) for name, changes in grid.ablations.items()),
    ]
    settings = {draft.setting: draft for draft in drafts}
    return [
        Point(
            kind=draft.kind,
            setting=setting,
            seed=seed,
            overrides=(*config.size, *config.overrides, f"seed={seed}", *draft.overrides),
            epochs=grid.sft_epochs if draft.kind == "sft_epochs" else 0,
            row=draft.row,
        )
        for setting, draft in settings.items()
        for seed in config.seeds[: draft.first_seeds]
    ]


class PointDraft(NamedTuple):
    """A setting before it is repeated with every seed."""

    kind: Kind
    setting: str
    overrides: list[str]
    row: str = ""
    first_seeds: int | None = None
    """So many of the seeds; None for all."""


def _policy(beta: float, gamma: float) -> PointDraft:
    return PointDraft("policy", policy_setting(beta, gamma), [f"ppo.beta={beta:g}", f"ppo.gamma={gamma:g}"])


def _road(policy: str, road: str, config: StudyConfig) -> PointDraft:
    """The reference point with one rival: what the two share is found in the store."""
    reference = _policy(config.reference.beta, config.reference.gamma)
    return PointDraft("policy", road_setting(policy), [*reference.overrides, f"rivals=[{road}]"], policy)


def _brakes(config: StudyConfig) -> list[PointDraft]:
    """A run that goes too far, as it is, with its best iteration and with each brake; and the reference point with each."""
    grid = config.grid
    if not grid.brakes:
        return []
    far = [*_policy(grid.braked_beta, 0.0).overrides, f"ppo.episodes={grid.braked_episodes}"]
    changes = {UNBRAKED: [], BEST_OF_BRAKED: ["ppo.selection=gold"]}
    changes |= {braked_setting(action): [f"ppo.brake={action}"] for action in grid.brakes}
    spent = [
        PointDraft("policy", setting, [*far, *more], first_seeds=grid.braked_seeds) for setting, more in changes.items()
    ]
    return [*spent, *(_ablation(healthy_setting(action), [f"ppo.brake={action}"], config) for action in grid.brakes)]


def _ablation(name: str, changes: Sequence[str], config: StudyConfig) -> PointDraft:
    reference = _policy(config.reference.beta, config.reference.gamma)
    return PointDraft("policy", name, [*reference.overrides, *changes])


def _reward(prompts: int, element: str, pairs_per_step: int) -> PointDraft:
    overrides = [f"comparisons.max_prompts={prompts}", f"reward_model.batch_element={element}"]
    if element == "pair":
        overrides.append(f"reward_model.batch_size={pairs_per_step}")
    return PointDraft("reward_model", reward_setting(prompts, element), overrides)


def next_point(pending: Sequence[Point], running: Iterable[Point], begun: Collection[int]) -> Point | None:
    """The first point that need not wait for somebody else to build the same data, base model and reward model.

    Args:
        pending: points to run, in order.
        running: points under way.
        begun: seeds of which a point has ended, well or badly, so that what its points share is there.

    Returns:
        None when every pending point would wait for a running one.
    """
    building = {point.seed for point in running} - set(begun)
    return next((point for point in pending if point.seed not in building), None)
