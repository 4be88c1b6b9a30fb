"""What the knobs of the PPO stage mean; their values live in ``conf/ppo``.

``beta`` and ``gamma`` are the letters of InstructGPT equation 2: the price of KL and the weight of the pretraining
gradient. The discount of reinforcement learning is called ``discount``.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.engine.config import AdamConfig, AdapterConfig, Config
from tasks.ppo.kl_control import LARGEST_ERROR
from tasks.ppo.sentinel_config import SentinelConfig
from tasks.rewards.config import RewardsConfig

FEWEST_SEQUENCES_TO_WHITEN_REWARDS = 8


class PPOConfig(Config):
    """One PPO or PPO-ptx run (InstructGPT appendix C.4)."""

    beta: float = Field(ge=0)
    """Price of leaving the reference policy: reward-model points per nat of log-ratio (the start value if adaptive)."""
    gamma: float = Field(ge=0)
    """Weight of the pretraining gradient against the policy gradient; 0 is plain PPO and reads no documents."""

    rewards: RewardsConfig
    """Who scores responses, and how the scores become one."""

    episodes: int = Field(gt=0)
    """Prompt-and-response pairs sampled in the whole run."""
    episodes_per_iteration: int = Field(gt=0)
    """Episodes sampled with one frozen copy of the policy; the paper's batch."""
    minibatch_size: int = Field(gt=0)
    """Episodes per optimizer step."""
    inner_epochs: int = Field(gt=0)
    """Times each episode is trained on."""
    responses_per_prompt: int = Field(gt=0)
    """Episodes of an iteration that share a prompt; 1 draws a prompt for each."""

    discount: float = Field(gt=0, le=1)
    """Worth of the next token's reward, relative to this token's."""
    advantage_estimator: Literal["gae", "leave_one_out", "group_normalised"]
    """What a token's advantage is: its own, by generalised advantage estimation with the value model; or that of its
    whole response against the others to the same prompt (needs responses_per_prompt of at least 2; there is no value
    model then): its reward beyond the mean of the others (RLOO), or beyond the mean of all in their standard deviations
    (GRPO's advantage; its KL is kl_in=loss)."""
    kl_in: Literal["reward", "loss"]
    """Where beta is paid: on each token's reward, so that it is part of the advantage (InstructGPT, RLOO); or in the
    policy's loss, on the KL's k3 estimate under the policy in training, so that rewards are the score alone (GRPO)."""
    gae_lambda: float = Field(ge=0, le=1)
    """Generalised advantage estimation: 0 is one-step TD, 1 is reward-to-go minus value."""
    policy_clip: float = Field(gt=0, lt=1)
    """Half-width of the band around 1 outside which a probability ratio earns nothing more."""
    value_clip: float = Field(gt=0)
    """Farthest a value may move from its value at sampling time, in reward-model points."""

    policy_adam: AdamConfig
    """Optimizer of the policy; its learning rate is the one after warm-up."""
    value_adam: AdamConfig
    """Optimizer of the value model; its learning rate is constant."""
    warmup_iterations: int = Field(ge=0)
    """Iterations until the policy's learning rate is full; 0 is full from the start."""
    warmup_start: float = Field(gt=0, le=1)
    """Fraction of the policy's learning rate used in the first iteration."""

    temperature: float = Field(gt=0)
    """Logits are divided by this when sampling and in every log-probability: policy, old policy and reference."""
    prompt_tokens: int = Field(gt=0)
    """Longest prompt."""
    response_tokens: int = Field(gt=0)
    """Longest response, EOS included."""

    score_position: Literal["on_eos", "after_eos", "last_position"]
    """Where the score enters the token rewards: on the last token; one later, where the value model is trained too; or
    (the 2019 code) at response_tokens, sampling on after EOS and masking nothing."""
    missing_eos: Literal["replace", "subtract", "minimum", "none"]
    """What happens to the score of a response that was cut off: replaced by missing_eos_score; lowered by its size;
    lowered to it when above; nothing."""
    missing_eos_score: float = Field(le=0)
    """In reward-model points, on whose scale demonstrations average 0."""
    whiten_rewards: bool
    """Scale the token rewards of an iteration to variance 1, keeping their mean, before advantages."""
    whiten_advantages: bool
    """Shift and scale the advantages of an iteration to mean 0 and variance 1."""
    whitening_variance: Literal["biased", "unbiased"]
    """Divide squared deviations by n (biased) or n - 1 when whitening."""

    ptx_examples_per_episode: int = Field(gt=0)
    """Pretraining rows per episode in each optimizer step."""
    ptx_row_tokens: int = Field(gt=1)
    """Length of a pretraining row; documents are joined by EOS and cut."""
    ptx_reduction: Literal["token_mean", "row_sum"]
    """What gamma multiplies: the negative log-likelihood of a pretraining token, or of a whole row, as equation 2 reads
    when x is a row (about ptx_row_tokens times as large)."""

    ema_decay: float = Field(ge=0, lt=1)
    """Share of the average that survives one update; the averaged weights are the stage's result."""
    ema_every: Literal["step", "iteration"]
    """One update per optimizer step or per iteration."""

    old_logprobs: Literal["recomputed", "sampled"]
    """Where the sampling policy's log-probabilities and entropies come from: a forward pass over the finished responses,
    on the batches of training, so that the first ratios are exactly 1; or the numbers at hand while sampling, which
    saves that pass and differs by rounding: in bf16 by about one per cent of a ratio, single tokens by more, and where a
    mixture of experts then asks another expert, by more than the clip allows."""
    rollout_engine: Literal["own", "vllm"]
    """Who samples: this program's decoder, or vLLM on the same GPU (other random numbers, same distribution)."""
    max_logprob_drift: float | None = Field(gt=0)
    """Largest mean difference, nats per token, of a foreign engine's log-probabilities from the trainer's on the same tokens; an
    iteration above it is not trained on: such an engine samples from other weights. null logs the drift only."""
    vllm_memory_share: float = Field(gt=0, lt=1)
    """Share of the card's memory that vLLM may take while it samples; read when rollout_engine is vllm."""

    kl_controller: Literal["fixed", "adaptive"]
    """Keep beta, or steer it towards kl_target (2019 code)."""
    kl_target: float = Field(gt=0)
    """Nats per response the adaptive controller aims at."""
    kl_horizon: float = Field(gt=0)
    """Episodes over which the adaptive controller reacts; larger is slower."""

    sentinel: SentinelConfig
    """Held-out judges of the rollouts, and what counts as a warning."""
    brake: Literal["off", "warn", "beta", "rollback", "stop"]
    """What is done once the KL that the policy spends is no longer repaid by the independent reward model, or entropy or length
    leave the sentinel's limits: nothing; a warning; beta times brake_factor; the same from the best weights so far; or the
    end of the run. After rollback and stop the stage ships the best weights, if it came to that. All but off need an
    independent reward model; gold is never read."""
    brake_price: float = Field(ge=0)
    """What a nat of KL costs there: standard deviations of the independent judge's scores at the start."""
    brake_fall: float = Field(gt=0)
    """The brake holds once that judge's score minus that price is so many standard deviations below its best window."""
    brake_factor: float = Field(gt=1)
    """What an intervention of beta or rollback multiplies beta by."""
    selection: Literal["last", "independent", "gold"]
    """Whose weights the stage ships: the last iteration's averaged weights, or the average of those that this held-out judge
    scored in the ``sentinel.window`` scorings whose mean was highest."""

    adapter: AdapterConfig | None
    """Thin matrices that are trained instead of the weights of policy and value model, which then share their frozen weights
    with the reference and the reward model; null trains every weight."""
    seed: int = Field(ge=0)
    """Source of every random choice of the stage."""

    def tracked_params(self, group: str) -> dict[str, Any]:
        """Both PPO and PPO-ptx read the group ``ppo``."""
        return super().tracked_params("ppo")

    def fingerprint_fields(self) -> dict[str, Any]:
        """What the parts of the reward read counts by its content."""
        return super().fingerprint_fields() | {"rewards": self.rewards.fingerprint_fields()}

    @property
    def reads_values(self) -> bool:
        """Whether there is a value model: advantages that compare responses to one prompt need none."""
        return self.advantage_estimator == "gae"

    @property
    def chosen_by(self) -> str:
        """Whose scores may choose among the iterations' weights; last for nobody's."""
        return "independent" if self.brake in ("rollback", "stop") else self.selection

    @property
    def iterations(self) -> int:
        """Batches of episodes in the whole run."""
        return self.episodes // self.episodes_per_iteration

    @property
    def scorings(self) -> int:
        """Iterations whose responses the held-out judges score."""
        return len(range(0, self.iterations, self.sentinel.every)) if self.sentinel.every else 0

    @property
    def minibatches_per_iteration(self) -> int:
        """Optimizer steps in one inner epoch."""
        return self.episodes_per_iteration // self.minibatch_size

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps in the whole run."""
        return self.iterations * self.inner_epochs * self.minibatches_per_iteration

    @property
    def ptx_rows_per_minibatch(self) -> int:
        """Pretraining rows behind one optimizer step."""
        return self.ptx_examples_per_episode * self.minibatch_size

    @model_validator(mode="after")
    def _whole_minibatches(self) -> "PPOConfig":
        if self.episodes_per_iteration % self.minibatch_size:
            raise ValueError(
                f"minibatch_size ({self.minibatch_size}) must divide "
                f"episodes_per_iteration ({self.episodes_per_iteration})"
            )
        return self

    @model_validator(mode="after")
    def _whole_iterations(self) -> "PPOConfig":
        if self.episodes % self.episodes_per_iteration:
            raise ValueError(
                f"episodes ({self.episodes}) must be a multiple of "
                f"episodes_per_iteration ({self.episodes_per_iteration})"
            )
        return self

    @model_validator(mode="after")
    def _own_logprobs(self) -> "PPOConfig":
        if self.old_logprobs == "sampled" and self.rollout_engine != "own":
            raise ValueError(
                f"old_logprobs=sampled takes the decoder's own numbers, and rollout_engine is {self.rollout_engine}, "
                "whose kernels are not the trainer's; use old_logprobs=recomputed or rollout_engine=own"
            )
        return self

    @model_validator(mode="after")
    def _whole_groups(self) -> "PPOConfig":
        if self.episodes_per_iteration % self.responses_per_prompt:
            raise ValueError(
                f"responses_per_prompt ({self.responses_per_prompt}) must divide "
                f"episodes_per_iteration ({self.episodes_per_iteration})"
            )
        if self.advantage_estimator != "gae" and self.responses_per_prompt < 2:
            raise ValueError(
                f"advantage_estimator={self.advantage_estimator} compares responses to one prompt, but "
                f"responses_per_prompt is {self.responses_per_prompt}; set at least 2"
            )
        return self

    @model_validator(mode="after")
    def _whitened_once(self) -> "PPOConfig":
        twice = [name for name in ("whiten_rewards", "whiten_advantages") if getattr(self, name)]
        if self.advantage_estimator == "group_normalised" and twice:
            raise ValueError(
                f"advantage_estimator=group_normalised already divides by a standard deviation, and {twice[0]} would divide "
                f"a second time; set {' and '.join(f'{name}=false' for name in twice)}"
            )
        return self

    @model_validator(mode="after")
    def _beta_stays_positive(self) -> "PPOConfig":
        """The controller multiplies beta by at least 1 - LARGEST_ERROR * episodes / horizon."""
        if self.kl_controller == "fixed":
            return self
        least = LARGEST_ERROR * self.episodes_per_iteration
        if self.kl_horizon <= least:
            raise ValueError(
                f"kl_horizon ({self.kl_horizon:g}) must be above {LARGEST_ERROR:g} * episodes_per_iteration "
                f"({self.episodes_per_iteration}) = {least:g}, or one step of the adaptive controller takes beta to 0 or "
                "below; raise kl_horizon (the 2019 code has 10000)"
            )
        if self.beta == 0:
            raise ValueError(
                "beta is 0 and kl_controller is adaptive, which multiplies beta and so leaves 0 at 0; set a beta above 0 or "
                "kl_controller=fixed"
            )
        return self

    @model_validator(mode="after")
    def _enough_to_whiten(self) -> "PPOConfig":
        if self.whiten_rewards and self.episodes_per_iteration < FEWEST_SEQUENCES_TO_WHITEN_REWARDS:
            raise ValueError(
                f"whiten_rewards needs episodes_per_iteration of at least {FEWEST_SEQUENCES_TO_WHITEN_REWARDS}, "
                f"found {self.episodes_per_iteration}"
            )
        return self

    @model_validator(mode="after")
    def _brake_is_alone(self) -> "PPOConfig":
        if self.brake != "off" and not self.sentinel.every:
            raise ValueError(
                f"brake is {self.brake} and sentinel.every is 0, so that no held-out judge is asked; set sentinel.every=1"
            )
        if self.brake in ("beta", "rollback") and self.kl_controller == "adaptive":
            raise ValueError(
                f"brake is {self.brake}, which raises beta, and kl_controller is adaptive, which lowers it again; set "
                "kl_controller=fixed or brake=stop"
            )
        if self.brake in ("beta", "rollback") and self.beta == 0:
            raise ValueError(
                f"beta is 0 and brake is {self.brake}, which multiplies beta and so leaves 0 at 0; set a beta above 0 or "
                "brake=stop"
            )
        if self.brake in ("rollback", "stop") and self.selection != "last":
            raise ValueError(
                f"brake is {self.brake} and selection is {self.selection}, and both choose the weights to ship; set "
                "selection=last or brake=off"
            )
        return self

    @model_validator(mode="after")
    def _enough_to_select(self) -> "PPOConfig":
        if self.selection != "last":
            window = self.sentinel.window
            if self.scorings < window:
                raise ValueError(
                    f"selection is {self.selection}, which needs sentinel.window ({window}) scorings, and sentinel.every "
                    f"({self.sentinel.every}) gives {self.scorings} in {self.iterations} iterations; train longer, set "
                    "sentinel.every=1 or a smaller sentinel.window, or selection=last"
                )
        return self
