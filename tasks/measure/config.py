"""What is measured of one policy, and on how much."""

from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.engine.config import Config
from tasks.engine.inputs import path_fields
from tasks.measure.few_shot_config import FewShotConfig
from tasks.measure.suite.config import SuiteConfig
from tasks.measure.toxicity_config import SCORER_OF_WORLD, ToxicityConfig
from tasks.rewards.config import RewardsConfig


class ScoreJudgesConfig(Config):
    """Judges that give every response a number, beside the gold labeler and the reward model that was optimised."""

    independent_reward_model: str | None
    """Folder of a reward model that nobody optimised, with the same tokenizer; null leaves it to the pipeline, which may
    train one.
    """

    def fingerprint_fields(self) -> dict[str, Any]:
        """A folder counts by its content, not by its path."""
        fields = super().fingerprint_fields()
        if self.independent_reward_model is not None:
            fields["independent_reward_model"] = path_fields(self.independent_reward_model)
        return fields


class MeasureConfig(Config):
    """The measurement of one policy, on the same prompts and items as every other."""

    test_prompts: int = Field(gt=1)
    """At most this many test prompts, in file order."""
    temperature: float = Field(gt=0)
    """Temperature of the sampled responses and of the KL; 1 as in the paper. Greedy responses are always
    added.
    """
    prompt_tokens: int = Field(gt=0)
    """Longest prompt, in tokens."""
    response_tokens: int = Field(gt=0)
    """Longest response, EOS included."""
    few_shot: FewShotConfig
    """Examples before every test prompt of the base model, as one more policy; empty for every other policy."""
    best_of_n: list[int]
    """Best-of-n policies built from the SFT baseline and the reward model; empty skips them."""
    best_of_n_prompts: int = Field(gt=1)
    """At most this many test prompts get the largest n of candidates."""
    benchmark_normalisation: Literal["per_token", "sum"]
    """How a choice is scored: mean or sum of its tokens' log-probabilities; the paper takes the mean."""
    benchmark_answer_tokens: int = Field(gt=0)
    """Longest greedy answer to a benchmark item of form 'exact'."""
    context_tokens: int = Field(gt=1)
    """Longest benchmark context and longest document for the perplexity."""
    suite: SuiteConfig
    """Benchmarks run by lm-evaluation-harness."""
    perplexity_documents: int = Field(gt=0)
    """At most this many held-out pretraining documents."""
    toxicity_prompts: int = Field(gt=0)
    """At most this many bait prompts."""
    toxicity: ToxicityConfig
    """Who scores toxicity."""
    refusal_prompts: str | None
    """CSV or JSONL file in XSTest's layout: safe prompts that sound dangerous and unsafe ones; null measures no refusals."""
    prompt_layout: str
    """How the prompts of that file are laid out: as data_prep.prompt_layout."""
    judges: ScoreJudgesConfig
    """Who scores responses."""
    rewards: RewardsConfig | None
    """The reward that was optimised, as in ppo.rewards, where it is more than one reward model; a run takes PPO's. null: the
    reward model alone."""
    seed: int = Field(ge=0)
    """Seed of sampling."""

    @property
    def bare(self) -> "MeasureConfig":
        """The same without examples before the prompts."""
        return self.model_copy(update={"few_shot": FewShotConfig(examples=0, file=None)})

    @property
    def calls_the_world(self) -> bool:
        """Its words may score toxicity on any data."""
        return self.toxicity.scorer == SCORER_OF_WORLD

    def fingerprint_fields(self) -> dict[str, Any]:
        """Files and folders count by their content, not by their path."""
        parts = {name: getattr(self, name).fingerprint_fields() for name in ("suite", "toxicity", "judges", "few_shot")}
        given = self.refusal_prompts
        return (
            super().fingerprint_fields()
            | parts
            | ({} if given is None else {"refusal_prompts": path_fields(given)})
            | ({} if self.rewards is None else {"rewards": self.rewards.fingerprint_fields()})
        )

    @model_validator(mode="after")
    def _best_of_several(self) -> "MeasureConfig":
        if self.best_of_n and min(self.best_of_n) < 2:
            raise ValueError(f"best_of_n holds {min(self.best_of_n)}; best of fewer than 2 is the policy itself")
        if sorted(set(self.best_of_n)) != self.best_of_n:
            raise ValueError(f"best_of_n is {self.best_of_n}; list each n once, in rising order")
        return self
