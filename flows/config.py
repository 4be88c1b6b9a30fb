"""The configuration of a whole run, and the one place below the command lines that knows Hydra."""

from typing import Any, Literal, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator

from flows import resolvers  # noqa: F401  first: conf/ computes with them
from flows.ask.arithmetic.config import DryRunConfig
from flows.complaints import describe, leave_out_what_is_not_there
from flows.evaluation_config import EvaluationConfig
from flows.lengths import misfits
from flows.misspelt import flat_keys, missing_keys, refused
from flows.process.environment import PROJECT
from flows.reward_ensemble import ensemble_problem, members
from flows.sweep.config import SweepConfig
from flows.tracking_config import TrackingConfig
from tasks.comparisons.config import ComparisonsConfig, SamplingConfig
from tasks.comparisons.job import ComparisonsJob, SamplingJob
from tasks.data_prep.config import OPTIONAL, DataPrepConfig
from tasks.data_prep.job import DataPrepJob
from tasks.dpo.config import DPOConfig
from tasks.engine.config import AdapterConfig, Config, ModelConfig, RuntimeConfig
from tasks.engine.errors import ConfigError
from tasks.language.seeds import derived_seed
from tasks.measure.config import MeasureConfig
from tasks.ppo.config import PPOConfig
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.job import PretrainJob
from tasks.revise.config import ReviseConfig
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.job import AcrossLabelersJob
from tasks.sft.config import SFTConfig

OnRankings = TypeVar("OnRankings", RewardModelConfig, DPOConfig)
CONF = PROJECT / "conf"


class RLHFConfig(Config):
    """One pipeline run, from raw data to an evaluated policy."""

    seed: int = Field(ge=0)
    """Seed of every stage; a stage's own seed follows it unless set."""
    rounds: int = Field(ge=1)
    """Of labelling and optimisation; from the second on, responses are the last policy's and PPO goes on from it."""
    plain_ppo: bool
    """Also train PPO without the pretraining term (gamma = 0) and show it beside PPO-ptx."""
    train_dpo: bool
    """Also train a DPO policy on the reward model's comparisons, from PPO's start, and show it beside PPO."""
    independent_reward_model: Literal["none", "other_seed", "disjoint_half"]
    """A second reward model that nothing is optimised against: it watches PPO and judges in the evaluation. other_seed
    trains it on the same comparisons; disjoint_half gives each model the comparisons of half of the prompts."""
    reward_ensemble: int = Field(ge=1)
    """Reward models that PPO optimises as one: mean less ppo.rewards' spread_penalty times standard deviation."""
    reward_ensemble_on: Literal["all", "disjoint_halves"]
    """all: members of other seeds on the same comparisons; disjoint_halves: two, each on those of half of the prompts."""
    labeler_folds: int = Field(ge=0)
    """Also train this many reward models, each without one group of labelers, and measure them on both (paper 4.1: 5);
    0 trains none."""
    adapter: AdapterConfig | None
    """Thin matrices that are trained instead of the weights, in every stage whose own ``adapter`` is not set; null trains
    every weight."""
    model: ModelConfig
    """Base model."""
    data_prep: DataPrepConfig
    """Sources, splits, cleaning."""
    revise: ReviseConfig
    """Demonstrations that a chat model makes by critique and revision."""
    pretrain: PretrainConfig
    """Training of a base model built from scratch."""
    sft: SFTConfig
    """The SFT baseline (paper C.1)."""
    ppo_init: SFTConfig
    """Where PPO starts and what its KL is measured against (paper C.3)."""
    comparisons: ComparisonsConfig
    """Responses to compare and who ranks them."""
    reward_model: RewardModelConfig
    """Reward model (paper C.2)."""
    ppo: PPOConfig
    """PPO-ptx (paper C.4)."""
    dpo: DPOConfig
    """Direct preference optimisation; read when train_dpo is set."""
    evaluation: EvaluationConfig
    """Win rate, benchmarks, safety."""
    runtime: RuntimeConfig
    """Device, precision, parallelism."""
    tracking: TrackingConfig
    """Artifact store and MLflow."""
    dry_run: DryRunConfig
    """Sizes that ``--dry-run`` cannot count."""
    sweep: SweepConfig
    """How the points of a sweep are weighed."""

    @property
    def data_prep_job(self) -> DataPrepJob:
        """Data preparation, with the tokenizer it needs; who has responses ranked needs no rankings in the data."""
        given = self.reads_comparisons and (self.data_prep.source == "sandbox" or not self.comparisons.samples)
        data, unread = self.data_prep, {} if given else {"comparisons": 0}
        data = data.model_copy(update={"minimum_rows": data.minimum_rows.model_copy(update=unread)})
        return DataPrepJob(data_prep=data, model=self.model, documents_for=self.documents_for)

    @property
    def documents_for(self) -> list[str]:
        """The knobs above 0 that need pretraining documents."""
        knobs = {
            "ppo.gamma": self.ppo.gamma,
            "ppo_init.pretraining_fraction": self.ppo_init.pretraining_fraction,
            "sft.pretraining_fraction": self.sft.pretraining_fraction,
        }
        return [name for name, value in knobs.items() if value > 0]

    @property
    def pretrain_job(self) -> PretrainJob:
        """The base model: what it is and how it is trained."""
        return PretrainJob(pretrain=self.pretrain, model=self.model)

    def sampling_job(self, number: int) -> SamplingJob:
        """Responses of a round that are kept apart from their rankings."""
        return SamplingJob(
            sampling=self.comparisons.part(SamplingConfig), round=number, policy=self._sampled_from(number)
        )

    def comparisons_job(self, number: int) -> ComparisonsJob:
        """Rankings of a round."""
        return ComparisonsJob(comparisons=self.comparisons, round=number, policy=self._sampled_from(number))

    def _sampled_from(self, number: int) -> str:
        return "sft" if number == 1 else f"{next(iter(self.ppo_runs))}, round {number - 1}"

    @property
    def reward_model_run(self) -> RewardModelConfig:
        """The reward model that PPO optimises."""
        return self._beside_the_independent(self.reward_model)

    @property
    def reward_model_runs(self) -> dict[str, RewardModelConfig]:
        """Input of PPO -> each of the run's own reward models; none where nobody asks for one."""
        wanted = self.ppo.rewards.own is not None or self.sft.selection == "reward_model"
        return members(self.reward_model_run, self.reward_ensemble, self.reward_ensemble_on) if wanted else {}

    @property
    def reads_comparisons(self) -> bool:
        """Whether any stage learns from rankings: a reward that is a function needs none."""
        return any((self.reward_model_runs, self.independent_reward_model != "none", self.labeler_folds, self.rivals))

    @property
    def measured(self) -> MeasureConfig:
        """The measurement of one policy; the judge that was optimised gives the scores that PPO optimised."""
        plain = (self.ppo.rewards.plain and self.reward_ensemble == 1) or self.evaluation.rewards is not None
        return self.evaluation.measured.model_copy(update={} if plain else {"rewards": self.ppo.rewards})

    @property
    def independent_reward_model_run(self) -> RewardModelConfig:
        """The reward model that nothing is optimised against; its seed is another one."""
        changes: dict[str, Any] = {"seed": derived_seed(self.reward_model.seed, "independent_reward_model")}
        if self.independent_reward_model == "disjoint_half":
            changes["trained_on"] = "second_half"
        return self.reward_model.model_copy(update=changes)

    @property
    def across_labelers(self) -> AcrossLabelersJob:
        """Cross-validation of the reward model over groups of labelers."""
        return AcrossLabelersJob(labeler_folds=self.labeler_folds, reward_model=self.reward_model)

    @property
    def rivals(self) -> dict[str, DPOConfig]:
        """Stage name -> configuration of every policy that is trained on the rankings themselves."""
        return {"dpo": self._beside_the_independent(self.dpo)} if self.train_dpo else {}

    def _beside_the_independent(self, knobs: OnRankings) -> OnRankings:
        """Whoever is not independent sees the same half, so that the independent reward model stays independent of all."""
        if self.independent_reward_model == "disjoint_half":
            return knobs.model_copy(update={"trained_on": "first_half"})
        return knobs

    @property
    def starts_from_sft(self) -> bool:
        """PPO's start is trained like the SFT baseline, so both have the same weights and one measurement is enough."""
        return self.ppo_init == self.sft

    @property
    def ppo_runs(self) -> dict[str, PPOConfig]:
        """Stage name -> configuration of every PPO run asked for, the pipeline's own first."""
        plain = self.ppo.model_copy(update={"gamma": 0.0})
        if self.ppo.gamma == 0:
            return {"ppo": plain}
        return {"ppo_ptx": self.ppo} | ({"ppo": plain} if self.plain_ppo else {})

    def ppo_runs_of(self, number: int) -> dict[str, PPOConfig]:
        """The PPO runs of a round; each round draws prompts and responses of its own."""
        if number == 1:
            return self.ppo_runs
        return {
            name: knobs.model_copy(update={"seed": derived_seed(knobs.seed, "round", number) % 2**31})
            for name, knobs in self.ppo_runs.items()
        }

    @model_validator(mode="after")
    def _lengths_fit(self) -> "RLHFConfig":
        context = self.model.context_tokens
        if found := misfits(self, context):
            raise ValueError(f"what does not fit into model.context_tokens ({context}): {found}")
        return self

    @model_validator(mode="after")
    def _every_stage_has_rows(self) -> "RLHFConfig":
        minimum = self.data_prep.minimum_rows.model_dump()
        unread = () if self.reads_comparisons else ("comparisons",)
        if none := [role for role, rows in minimum.items() if rows == 0 and role not in (OPTIONAL, *unread)]:
            raise ValueError(
                f"data_prep.minimum_rows.{none[0]} is 0, expected at least 1: every run needs {none[0].replace('_', ' ')}"
            )
        return self

    @model_validator(mode="after")
    def _rounds_sample(self) -> "RLHFConfig":
        why = "comparisons.source is given" if not self.comparisons.samples else "no reward model learns from labels"
        if self.rounds > 1 and not (self.comparisons.samples and self.reward_model_runs):
            raise ValueError(
                f"rounds is {self.rounds} and {why}; set rounds=1, or have responses ranked for a reward model"
            )
        return self

    @model_validator(mode="after")
    def _labelers_exist(self) -> "RLHFConfig":
        read = self.reads_comparisons and self.comparisons.samples
        if self.data_prep.source != "sandbox" and read and "simulated" in self.comparisons.labelers:
            raise ValueError(
                f"comparisons.labelers contains simulated, who exist in the embedded world only, and data_prep.source is "
                f"{self.data_prep.source}; set comparisons.labelers=[people], or another labeler"
            )
        return self

    @model_validator(mode="after")
    def _ppo_init_is_not_chosen_by_reward(self) -> "RLHFConfig":
        if self.ppo_init.selection == "reward_model":
            raise ValueError(
                "ppo_init.selection is reward_model, and only the SFT baseline has a second pass (paper C.1); set "
                "ppo_init.selection=last or validation_loss"
            )
        return self

    @model_validator(mode="after")
    def _more_than_one_fold(self) -> "RLHFConfig":
        if self.labeler_folds == 1:
            raise ValueError(
                "labeler_folds is 1, which holds every labeler out and trains on none; use 0 or at least 2"
            )
        return self

    @model_validator(mode="after")
    def _an_ensemble_has_use(self) -> "RLHFConfig":
        knobs = (self.reward_ensemble, self.reward_ensemble_on, self.rounds, self.independent_reward_model)
        if found := ensemble_problem(*knobs, self.ppo.rewards, self.reward_model):
            raise ValueError(found)
        return self

    @model_validator(mode="after")
    def _halves_of_all(self) -> "RLHFConfig":
        for name, stage in self:
            part = getattr(stage, "trained_on", "all")
            if self.independent_reward_model == "disjoint_half" and part != "all":
                raise ValueError(
                    f"independent_reward_model is disjoint_half, which halves the comparisons itself, and "
                    f"{name}.trained_on is {part}; set {name}.trained_on=all"
                )
        return self

    @model_validator(mode="after")
    def _who_selects_does_not_judge(self) -> "RLHFConfig":
        """A maximum over iterations is too good by the judge that took it; a gate must not pass on that."""
        gate, other = self.evaluation.gate, {"gold": "independent", "independent": "gold"}
        if gate.decides_by_judge and gate.judge == self.ppo.selection:
            raise ValueError(
                f"ppo.selection and evaluation.gate.judge are both {gate.judge}: the judge that chooses the weights may not "
                f"decide about them; set evaluation.gate.judge={other[gate.judge]}, or ppo.selection=last"
            )
        return self

    @model_validator(mode="after")
    def _someone_selects(self) -> "RLHFConfig":
        selection = self.ppo.selection
        if selection == "independent" and self.independent_reward_model == "none":
            raise ValueError(
                "ppo.selection is independent and independent_reward_model is none; set independent_reward_model=other_seed"
            )
        if selection == "gold" and self.data_prep.source != "sandbox":
            raise ValueError(
                f"ppo.selection is gold, whose labeler exists in the embedded world only, and data_prep.source is "
                f"{self.data_prep.source}; set ppo.selection=independent or last"
            )
        return self


def parse(values: DictConfig | dict[str, Any]) -> RLHFConfig:
    """Validate what Hydra composed.

    Raises:
        ConfigError: unknown or missing keys, wrong types or values, each with its full path.
    """
    try:
        plain = values
        if isinstance(values, DictConfig):
            missing = missing_keys(values)  # first: others may be computed from them
            if missing:
                raise MissingMandatoryValue(missing[0])
            plain = OmegaConf.to_container(values, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
        leave_out_what_is_not_there(plain)
        return RLHFConfig.model_validate(plain)
    except MissingMandatoryValue as error:
        path = str(error).split(": ")[-1].splitlines()[0]
        raise ConfigError(
            f"{path}: no value, and none can be guessed; give one on the command line: {path}=..."
        ) from None
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "configuration"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}; check what stands in ${{...}}") from None
    except ValidationError as error:
        known = flat_keys(values) if isinstance(values, DictConfig) else ()
        raise ConfigError(describe(error, known)) from None


def load(overrides: list[str] | None = None, config_name: str = "rlhf") -> RLHFConfig:
    """Compose ``conf/`` with overrides, outside of a Hydra command line.

    Raises:
        ConfigError: an override that does not apply, or an invalid configuration.
    """
    return parse(composed(overrides, config_name))


def composed(overrides: list[str] | None = None, config_name: str = "rlhf") -> DictConfig:
    """The values of ``conf/`` with overrides, not validated and with their interpolations.

    Raises:
        ConfigError: an override that does not apply.
    """
    given = overrides or []
    saved = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3", job_name=config_name):
            try:
                return compose(config_name, overrides=given)
            except Exception as error:  # Hydra's own, and what it stumbles over: TypeError for ppo=[1]
                groups = [path.name for path in CONF.iterdir() if path.is_dir()]
                known = [*flat_keys(compose(config_name)), *groups]
                raise ConfigError(refused(str(error), given, known)) from error
    finally:
        GlobalHydra.instance().hydra = saved
