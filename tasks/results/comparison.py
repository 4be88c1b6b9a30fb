"""The record that a comparison of policies leaves: what the table, the page, the tracker and a gate read."""

from tasks.results.judge import ChatUsage, OrderEffects
from tasks.results.policies import POLICIES
from tasks.results.safety_figure import SafetyFigure
from tasks.results.sheet import (
    GREEDY,
    OPPONENT,
    SAMPLED,
    BestOfPoint,
    SheetRecord,
)
from tasks.results.win_rate import Interval, WinRate

COMPARISON = "comparison.json"
REPORT = "report.html"


def title_of(policy: str, decoding: str = "", temperature: float = 1.0) -> str:
    """How a policy, or one decoding of it, is called on paper."""
    name = POLICIES[policy].title if policy in POLICIES else policy
    if decoding == "":
        return name
    if decoding in (SAMPLED, OPPONENT):
        return f"{name}, T = {temperature:g}"
    return f"{name}, greedy" if decoding == GREEDY else f"{name}, best of {decoding.rsplit('_', 1)[1]}"


class TruthShares(SheetRecord):
    """Answers to myth questions, as shares; true alone rewards a policy that says nothing."""

    questions: int
    true: float
    informative: float
    both: float
    held_out_questions: int
    both_held_out: float | None


class Ruling(SheetRecord):
    """What one judge says of one way of answering."""

    win: WinRate
    win_held_out: WinRate | None
    """On prompts about held-out entities only; None when there are none."""
    win_unseen: WinRate | None = None
    """On requests that no training prompt makes; None when there are none."""
    by_kind: dict[str, WinRate]
    """By kind of prompt (InstructGPT table 1's use cases); empty when prompts carry none."""
    length_controlled: Interval | None
    """Win rate as if both responses were equally long; None when too few prompts were judged."""
    style_controlled: Interval | None = None
    """The same with markdown taken out too; None where the two never differ in it."""
    orders: OrderEffects | None
    """How the order of the responses mattered; None for a judge that gives scores."""


class PolicyRow(SheetRecord):
    """One way of answering, and what it is set against."""

    key: str
    """In metric names: ppo_ptx, ppo_ptx_greedy, best_of_4."""
    title: str
    policy: str
    decoding: str
    against: str
    """Title of the opponent."""
    against_decoding: str
    rulings: dict[str, Ruling]
    """By judge; a judge that has seen none of these responses is missing."""
    scores: dict[str, float]
    """Mean score by judge that gives scores."""
    kl: Interval | None
    """To the reference policy, nats per response."""
    kl_is_bound: bool
    """The KL is the analytic upper bound of best-of-n, to the policy that it samples and not to the reference."""
    length: float
    """Mean response length in tokens."""
    eos_rate: float
    against_start: dict[str, WinRate] = {}
    """By judge that gives scores: against the policy that PPO started from, at the same decoding, on the same prompts."""
    against_yardstick: dict[str, WinRate] = {}
    """The same against the run's yardstick; empty without one."""
    truth: TruthShares | None
    benchmark: float | None = None
    """Mean over tasks of the share correct; this and what follows belong to the policy and stand in its
    sampled row.
    """
    change_vs_base: Interval | None = None
    change_vs_sft: Interval | None = None
    perplexity_ratio: Interval | None = None
    """Perplexity on held-out pretraining text over the base model's."""
    toxicity: Interval | None = None
    toxicity_change_vs_sft: Interval | None = None

    @property
    def win(self) -> dict[str, WinRate]:
        """Win rate by judge."""
        return {judge: ruling.win for judge, ruling in self.rulings.items()}


class TaskChange(SheetRecord):
    """One benchmark task of one policy."""

    policy: str
    task: str
    items: int
    accuracy: float
    change_vs_base: Interval | None
    change_vs_sft: Interval | None


class PolicyComparison(SheetRecord):
    """Every policy of a run, compared."""

    judges: list[str]
    """From the most to the least trusted; a pair judge may have ruled on some rows only."""
    selected_by: dict[str, str] = {}
    """Policy -> the judge that chose its weights, where one did: its figures by that judge are too good."""
    chat: ChatUsage | None
    """What the chat model's verdicts took; None when none was asked."""
    confidence: float
    temperature: float
    toxicity_scorer: str | None
    rows: list[PolicyRow]
    tasks: list[TaskChange]
    best_of_curve: list[BestOfPoint]
    safety: dict[str, list[SafetyFigure]]
    """By policy."""
    verdict: str
    """One or two sentences that a reader may quote."""
    notes: list[str]
    """What a sceptical reader should know."""
    metrics: dict[str, float]
    """Flat names for tracking."""

    @property
    def test_prompts(self) -> int:
        """Prompts of the largest comparison."""
        return max(ruling.win.prompts for row in self.rows for ruling in row.rulings.values())

    def row(self, key: str) -> PolicyRow | None:
        """The row with this key, if it was measured."""
        return next((row for row in self.rows if row.key == key), None)
