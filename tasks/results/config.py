"""What the evaluation measures, on how much, and how it judges."""

from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.compare.judges.config import JudgesConfig
from tasks.engine.config import Config
from tasks.gate.config import GateConfig
from tasks.measure.suite.config import SuiteConfig
from tasks.measure.toxicity_config import ToxicityConfig


class EvaluationConfig(Config):
    """One evaluation of every policy of a run, on the same prompts and items."""

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
    best_of_n: list[int]
    """Best-of-n policies built from the SFT baseline and the reward model; empty skips them."""
    best_of_n_prompts: int = Field(gt=1)
    """At most this many test prompts get the largest n of candidates."""
    tie_margin: dict[Literal["gold", "reward_model"], float]
    """Scores that differ by at most this much are a tie, per judge, in that judge's points."""
    bootstrap_samples: int = Field(gt=99)
    """Bootstrap replicates behind every interval."""
    confidence: float = Field(gt=0.5, lt=1)
    """Coverage of every interval."""
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
    judges: JudgesConfig
    """Who judges beside the gold labeler and the reward model, and how length is taken out."""
    gate: GateConfig
    """What a policy must reach before it is promoted; no figure depends on it."""
    samples_in_report: int = Field(ge=0)
    """Test prompts shown with all responses side by side, drawn by seed."""
    seed: int = Field(ge=0)
    """Seed of sampling, of bootstrap and of the choice of samples."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Files and folders count by their content, not by their path; the gate reads the results and changes none."""
        fields = super().fingerprint_fields()
        del fields["gate"]
        fields["suite"] = self.suite.fingerprint_fields()
        fields["toxicity"] = self.toxicity.fingerprint_fields()
        fields["judges"] = self.judges.fingerprint_fields()
        return fields

    @property
    def of_one_policy(self) -> "EvaluationConfig":
        """What the measurement of one policy reads: a new chat judge or new verdicts must not sample anew."""
        return self.model_copy(update={"judges": self.judges.of_one_policy})

    @model_validator(mode="after")
    def _complete(self) -> "EvaluationConfig":
        if set(self.tie_margin) != {"gold", "reward_model"}:
            raise ValueError(f"tie_margin names {sorted(self.tie_margin)}; expected gold and reward_model")
        if min(self.tie_margin.values()) < 0:
            raise ValueError(f"tie_margin holds {min(self.tie_margin.values())}; a margin is at least 0")
        if self.gate.max_toxicity_change is not None and self.toxicity.scorer == "none":
            raise ValueError(
                f"gate.max_toxicity_change is {self.gate.max_toxicity_change} and toxicity.scorer is none; choose a scorer or "
                "set the limit to null"
            )
        if self.best_of_n and min(self.best_of_n) < 2:
            raise ValueError(f"best_of_n holds {min(self.best_of_n)}; best of fewer than 2 is the policy itself")
        if sorted(set(self.best_of_n)) != self.best_of_n:
            raise ValueError(f"best_of_n is {self.best_of_n}; list each n once, in rising order")
        return self
