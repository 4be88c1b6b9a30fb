"""Several reward models that PPO optimises as one: how each is trained, and what of that fits together."""

from typing import Literal

from tasks.language.seeds import derived_seed
from tasks.reward_model.config import RewardModelConfig
from tasks.rewards.config import RewardsConfig

LearnsFrom = Literal["all", "disjoint_halves"]
HALVES = ("first_half", "second_half")


def members(first: RewardModelConfig, count: int, on: LearnsFrom) -> dict[str, RewardModelConfig]:
    """Input of PPO -> configuration of each member; the first is the one that there is without an ensemble."""
    runs = {"reward_model": first}
    for member in range(2, count + 1):
        seed = derived_seed(first.seed, f"reward_ensemble/{member}")
        runs[f"reward_model_{member}"] = first.model_copy(update={"seed": seed})
    if on == "all":
        return runs
    pairs = zip(runs.items(), HALVES, strict=False)  # two, as ``ensemble_problem`` asks
    return {name: run.model_copy(update={"trained_on": half}) for (name, run), half in pairs}


def ensemble_problem(
    count: int, on: LearnsFrom, independent: str, rewards: RewardsConfig, reward_model: RewardModelConfig
) -> str | None:
    """Why so many members cannot be, if they cannot."""
    own = rewards.own
    if count > 1 and own is None:
        return (
            f"reward_ensemble is {count} and no part of ppo.rewards is the run's own reward model (kind reward_model, folder "
            "null), so that nothing reads it; add the part or set reward_ensemble=1"
        )
    if own is not None and own.spread_penalty and count == 1:
        return (
            f"ppo.rewards: spread_penalty of {own.name} is {own.spread_penalty:g} and reward_ensemble is 1, and one model has no "
            "spread; set reward_ensemble=2 or more, or spread_penalty: 0"
        )
    if on == "disjoint_halves" and count != 2:
        return (
            f"reward_ensemble_on is disjoint_halves and reward_ensemble is {count}; two halves make two members: set "
            "reward_ensemble=2"
        )
    return _halves_problem(on, independent, reward_model)


def _halves_problem(on: LearnsFrom, independent: str, reward_model: RewardModelConfig) -> str | None:
    """Why two members cannot have a half each, if they cannot."""
    if on == "all" or (independent != "disjoint_half" and reward_model.trained_on == "all"):
        return None
    return (
        "reward_ensemble_on is disjoint_halves, which gives all comparisons away, and independent_reward_model is "
        f"{independent} and reward_model.trained_on {reward_model.trained_on}; set independent_reward_model=other_seed and "
        "reward_model.trained_on=all"
    )
