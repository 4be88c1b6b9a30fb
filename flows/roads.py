"""The roads of a run: which policies are trained from one start, and with what."""

from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from flows.rejection_config import RejectionSamplingConfig
from tasks.dpo.config import DPOConfig
from tasks.engine.config import Config
from tasks.language.seeds import derived_seed
from tasks.ppo.config import PPOConfig
from tasks.records.choices import BEST, BY_LOT
from tasks.reward_model.config import RewardModelConfig

OnRankings = TypeVar("OnRankings", RewardModelConfig, DPOConfig)
Rival = Literal["dpo", "rejection_sampling", "rloo", "grpo"]
GROUPED: dict[str, dict[str, Any]] = {
    "rloo": {"advantage_estimator": "leave_one_out", "kl_in": "reward"},
    "grpo": {"advantage_estimator": "group_normalised", "kl_in": "loss"},
}
"""What makes PPO one of the roads that compare responses to one prompt: Ahmadian et al. 2024; Shao et al. 2024."""


class RoadsConfig(Config):
    """What is trained on the comparisons: reward models, PPO, and its rivals."""

    plain_ppo: bool
    """Also train PPO without the pretraining term (gamma = 0) and show it beside PPO-ptx."""
    rivals: list[Rival]
    """Also train these policies from PPO's start, on the same comparisons or the same reward model, and show each beside PPO:
    dpo learns from the reward model's comparisons; rejection_sampling from the best of several samples, beside a control that
    learns from samples chosen by lot; rloo and grpo are PPO without value model and without pretraining gradients."""
    train_dpo: bool
    """Short for rivals=[dpo]."""
    group_responses: int = Field(ge=2)
    """Responses to one prompt that rloo and grpo compare; they draw as many responses as PPO, to so many times fewer prompts."""
    ppo_starts_from: Literal["ppo_init", "rejection_sampling"]
    """Where every PPO policy starts. The reference of its KL is ppo_init whatever the start is."""
    independent_reward_model: Literal["none", "other_seed", "disjoint_half"]
    """A second reward model that nothing is optimised against: it watches PPO and judges in the evaluation. other_seed
    trains it on the same comparisons; disjoint_half gives each model the comparisons of half of the prompts."""
    reward_model: RewardModelConfig
    """Reward model (paper C.2)."""
    ppo: PPOConfig
    """PPO-ptx (paper C.4)."""
    rejection_sampling: RejectionSamplingConfig
    """Learning from the best of several samples; read when rivals or ppo_starts_from has it."""
    dpo: DPOConfig
    """Direct preference optimisation; read when rivals has it."""

    @property
    def ppo_runs(self) -> dict[str, PPOConfig]:
        """Stage name -> configuration of every PPO run asked for, the pipeline's own first."""
        plain = self.ppo.model_copy(update={"gamma": 0.0})
        runs = {"ppo": plain} if self.ppo.gamma == 0 else {"ppo_ptx": self.ppo}
        if self.plain_ppo:
            runs["ppo"] = plain
        # A whole response's advantage is centred already, and GRPO's scaled: neither is whitened.
        groups = {"responses_per_prompt": self.group_responses, "whiten_rewards": False, "whiten_advantages": False}
        rivals = {name: changes for name, changes in GROUPED.items() if name in self.rivals}
        return runs | {name: plain.model_copy(update=groups | changes) for name, changes in rivals.items()}

    @property
    def preference_runs(self) -> dict[str, DPOConfig]:
        """Stage name -> configuration of every policy that is trained on the rankings themselves."""
        return {"dpo": self._beside_the_independent(self.dpo)} if self.train_dpo or "dpo" in self.rivals else {}

    @property
    def sampling_runs(self) -> dict[str, str]:
        """Stage name -> which responses it learns from, of every policy that is trained on samples of PPO's start."""
        if "rejection_sampling" in self.rivals:
            return {"rejection_sampling": BEST, "random_control": BY_LOT}
        return {"rejection_sampling": BEST} if self.ppo_starts_from == "rejection_sampling" else {}

    @property
    def reward_model_run(self) -> RewardModelConfig:
        """The reward model that PPO optimises."""
        return self._beside_the_independent(self.reward_model)

    @property
    def independent_reward_model_run(self) -> RewardModelConfig:
        """The reward model that nothing is optimised against; its seed is another one."""
        changes: dict[str, Any] = {"seed": derived_seed(self.reward_model.seed, "independent_reward_model")}
        if self.independent_reward_model == "disjoint_half":
            changes["trained_on"] = "second_half"
        return self.reward_model.model_copy(update=changes)

    def _beside_the_independent(self, knobs: OnRankings) -> OnRankings:
        """Whoever is not independent sees the same half, so that the independent reward model stays independent of all."""
        if self.independent_reward_model == "disjoint_half":
            return knobs.model_copy(update={"trained_on": "first_half"})
        return knobs

    @field_validator("rivals")
    @classmethod
    def _each_once(cls, value: list[Rival]) -> list[Rival]:
        if len(set(value)) < len(value):
            raise ValueError(f"found {value}, expected each rival once")
        return value

    @model_validator(mode="after")
    def _groups_are_whole(self) -> "RoadsConfig":
        asked = [name for name in GROUPED if name in self.rivals]
        if asked and self.ppo.episodes_per_iteration % self.group_responses:
            raise ValueError(
                f"rivals has {asked[0]}, and group_responses ({self.group_responses}) does not divide "
                f"ppo.episodes_per_iteration ({self.ppo.episodes_per_iteration}); choose one that does"
            )
        return self

    @model_validator(mode="after")
    def _halves_of_all(self) -> "RoadsConfig":
        for name, stage in self:
            part = getattr(stage, "trained_on", "all")
            if self.independent_reward_model == "disjoint_half" and part != "all":
                raise ValueError(
                    f"independent_reward_model is disjoint_half, which halves the comparisons itself, and "
                    f"{name}.trained_on is {part}; set {name}.trained_on=all"
                )
        return self
