"""The configuration of a whole run, and the one place below the command lines that knows Hydra."""

from pathlib import Path
from typing import Any, Literal

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator

from flows import resolvers  # noqa: F401  first: conf/ computes with them
from flows.ask.arithmetic.config import DryRunConfig
from flows.complaints import describe, leave_out_what_is_not_there, unresolved
from flows.evaluation_config import EvaluationConfig
from flows.lengths import misfits
from flows.misspelt import flat_values, missing_keys, refused
from flows.process.environment import PROJECT
from flows.reward_ensemble import ensemble_problem, members
from flows.roads import RoadsConfig
from flows.rounds_problem import rounds_problem
from flows.sweep.config import SweepConfig
from flows.tracking_config import TrackingConfig
from tasks.comparisons.config import ComparisonsConfig, SamplingConfig
from tasks.comparisons.job import ComparisonsJob, SamplingJob
from tasks.data_prep.config import OPTIONAL, DataPrepConfig
from tasks.data_prep.job import DataPrepJob
from tasks.engine.config import AdapterConfig, ModelConfig, RuntimeConfig
from tasks.engine.errors import ConfigError
from tasks.language.seeds import derived_seed
from tasks.measure.config import MeasureConfig
from tasks.ppo.config import PPOConfig
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.job import PretrainJob
from tasks.revise.config import ReviseConfig
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.job import AcrossLabelersJob, QuestionsJob
from tasks.sft.config import SFTConfig

CONF = PROJECT / "conf"


class RLHFConfig(RoadsConfig):
    """One pipeline run, from raw data to an evaluated policy."""

    seed: int = Field(ge=0)
    """Seed of every stage; a stage's own seed follows it unless set."""
    rounds: int = Field(ge=1)
    """Rounds of labelling and optimisation. From the second on, the last round's policy writes the responses that are ranked, the
    reward models learn from all rankings so far, and PPO goes on from that policy, its KL still measured to PPO-init."""
    reward_ensemble: int = Field(ge=1)
    """Reward models that PPO optimises as one: mean less ppo.rewards' spread_penalty times standard deviation."""
    reward_ensemble_on: Literal["all", "disjoint_halves"]
    """all: members of other seeds on the same comparisons; disjoint_halves: two, each on those of half of the prompts."""
    reward_questions: str | None
    """JSONL file in RewardBench 2's layout: also ask the reward model its questions; null asks none."""
    noise_floor: bool
    """Also measure the base model with another seed of the evaluation: how far two measurements of one policy lie apart."""
    yardstick: str | None
    """Hugging Face folder of a causal LM that is measured too, and that every policy is compared with: the same opponent for
    many runs, whose SFT baselines differ; null for none."""
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
        sampling = self.comparisons.in_round(number).part(SamplingConfig)
        return SamplingJob(sampling=sampling, round=number, policy=self._sampled_from(number))

    def comparisons_job(self, number: int) -> ComparisonsJob:
        """Rankings of a round."""
        return ComparisonsJob(
            comparisons=self.comparisons.in_round(number), round=number, policy=self._sampled_from(number)
        )

    def _sampled_from(self, number: int) -> str:
        return "sft" if number == 1 else f"{next(iter(self.ppo_runs))}, round {number - 1}"

    @property
    def reward_model_runs(self) -> dict[str, RewardModelConfig]:
        """Input of PPO -> each of the run's own reward models; none where nobody asks for one."""
        asked = self.sft.selection == "reward_model" or self.reward_questions is not None
        wanted = self.ppo.rewards.own is not None or asked
        return members(self.reward_model_run, self.reward_ensemble, self.reward_ensemble_on) if wanted else {}

    @property
    def reads_comparisons(self) -> bool:
        """Whether any stage learns from rankings: a reward that is a function needs none."""
        others = self.labeler_folds, self.preference_runs
        return any((self.reward_model_runs, self.independent_reward_model != "none", *others))

    @property
    def measured(self) -> MeasureConfig:
        """The measurement of one policy; the judge that was optimised gives the scores that PPO optimised."""
        return self._by_what_was_optimised(self.evaluation.measured)

    @property
    def measured_prompted(self) -> MeasureConfig:
        """The measurement of the base model behind evaluation.few_shot."""
        return self._by_what_was_optimised(self.evaluation.measured_prompted)

    def _by_what_was_optimised(self, measured: MeasureConfig) -> MeasureConfig:
        plain = (self.ppo.rewards.plain and self.reward_ensemble == 1) or measured.rewards is not None
        return measured if plain else measured.model_copy(update={"rewards": self.ppo.rewards})

    @property
    def measured_again(self) -> MeasureConfig:
        """The same with other random numbers."""
        return self.measured.model_copy(update={"seed": derived_seed(self.evaluation.seed, "evaluation/noise floor")})

    @property
    def across_labelers(self) -> AcrossLabelersJob:
        """Cross-validation of the reward model over groups of labelers."""
        return AcrossLabelersJob(labeler_folds=self.labeler_folds, reward_model=self.reward_model)

    @property
    def questions_job(self) -> QuestionsJob:
        """The questions of reward_questions, laid out like the data."""
        knobs = self.reward_model
        return QuestionsJob(
            file=self.reward_questions or "",
            prompt_layout=self.data_prep.prompt_layout,
            prompt_tokens=knobs.prompt_tokens,
            response_tokens=knobs.response_tokens,
        )

    @property
    def fine_tuning_runs(self) -> dict[str, SFTConfig]:
        """By stage name; where PPO's start is trained like the SFT baseline, the one is the other."""
        return {"sft": self.sft} if self.ppo_init == self.sft else {"sft": self.sft, "ppo_init": self.ppo_init}

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
        knobs = (bool(self.reward_model_runs), self.independent_reward_model)
        if found := rounds_problem(self.rounds, self.comparisons, *knobs):
            raise ValueError(found)
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
        knobs = (self.reward_ensemble, self.reward_ensemble_on, self.independent_reward_model)
        if found := ensemble_problem(*knobs, self.ppo.rewards, self.reward_model):
            raise ValueError(found)
        return self

    @model_validator(mode="after")
    def _samples_have_one_judge(self) -> "RLHFConfig":
        if self.sampling_runs and not (self.ppo.rewards.plain and self.reward_ensemble == 1):
            raise ValueError(
                "rejection_sampling is asked for, which chooses by the run's own reward model alone, and ppo.rewards or "
                "reward_ensemble asks for another reward, so that the rows would not compare; leave rejection_sampling out"
            )
        if self.ppo_starts_from != "ppo_init" and self.rounds > 1:
            raise ValueError(
                f"ppo_starts_from is {self.ppo_starts_from} and rounds is {self.rounds}: a later round starts where the last one "
                "ended; set rounds=1 or ppo_starts_from=ppo_init"
            )
        return self

    @model_validator(mode="after")
    def _who_selects_does_not_judge(self) -> "RLHFConfig":
        """A maximum over iterations is too good by the judge that took it; a gate must not pass on that."""
        gate, other = self.evaluation.gate, {"gold": "independent", "independent": "gold"}
        if gate.decides_by_judge and gate.judge == self.ppo.chosen_by:
            knob = "selection=last" if self.ppo.selection != "last" else "brake=off"
            how = "ppo.selection" if self.ppo.selection != "last" else f"the judge of ppo.brake={self.ppo.brake}"
            raise ValueError(
                f"{how} and evaluation.gate.judge are both {gate.judge}: the judge that chooses the weights may not "
                f"decide about them; set evaluation.gate.judge={other[gate.judge]}, or ppo.{knob}"
            )
        return self

    @model_validator(mode="after")
    def _someone_selects(self) -> "RLHFConfig":
        selection = self.ppo.selection
        if selection == "independent" and self.independent_reward_model == "none":
            raise ValueError(
                "ppo.selection is independent and independent_reward_model is none; set independent_reward_model=other_seed"
            )
        if self.ppo.brake != "off" and self.independent_reward_model == "none":
            raise ValueError(
                f"ppo.brake is {self.ppo.brake}, which asks the independent reward model, and independent_reward_model is none; "
                "set independent_reward_model=other_seed, or ppo.brake=off"
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
        raise ConfigError(unresolved(error)) from None
    except ValidationError as error:
        raise ConfigError(describe(error, values)) from None


def load(overrides: list[str] | None = None, config_name: str = "rlhf") -> RLHFConfig:
    """Compose ``conf/`` with overrides, outside of a Hydra command line.

    Raises:
        ConfigError: an override that does not apply, or an invalid configuration.
    """
    return parse(composed(overrides, config_name))


def composed(overrides: list[str] | None = None, config_name: str = "rlhf", folder: Path = CONF) -> DictConfig:
    """The values of ``folder`` with overrides, not validated and with their interpolations.

    Raises:
        ConfigError: an override that does not apply.
    """
    given = overrides or []
    saved = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folder), version_base="1.3", job_name=config_name):
            try:
                return compose(config_name, overrides=given)
            except Exception as error:  # Hydra's own, and what it stumbles over: TypeError for ppo=[1]
                groups = [path.name for path in folder.iterdir() if path.is_dir()]
                known = [*flat_values(compose(config_name)), *groups]
                raise ConfigError(refused(str(error), given, known, config_name)) from error
    finally:
        GlobalHydra.instance().hydra = saved
