"""What a judge promises, and how a judge that may mind the order of two responses is asked in both."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.engine.errors import DataError
from tasks.records.records import Prompt
from tasks.results.win_rate import Floats

CHAT = "chat"
"""Judge: a chat model."""
HUMANS = "humans"
"""Judge: a file of people's verdicts."""
FIRST, TIE, SECOND = 1, 0, -1
"""What a single verdict says: the response shown first is better, neither is, the one shown second is."""


class Answers(NamedTuple):
    """Responses to prompts, as tokens and as text; one entry a response."""

    prompts: list[list[int]]
    tokens: list[list[int]]
    texts: list[str]
    finished: list[bool]
    """The response ended with EOS."""
    asked: list[list[int]] = []
    """The prompts with what came before them, where the policy that answered was given more than a judge reads."""


class ScoreJudge(Protocol):
    """A judge that gives every response a number: gold labeler, reward model."""

    name: str

    def score(self, prompts: Sequence[Prompt], answers: Answers) -> list[float]:
        """One score a response; higher is better."""
        ...


class Pair(NamedTuple):
    """Two responses to one prompt: one of a policy, one of its opponent."""

    prompt_id: str
    prompt: str
    response: str
    opponent: str
    names: tuple[str, str]
    """Names of policy and opponent, for verdicts that are given by name; never shown to a judge."""


class Question(NamedTuple):
    """A pair as a judge sees it."""

    prompt: str
    first: str
    second: str


Verdict = int | None
"""FIRST, TIE or SECOND; None when no verdict could be had."""


class OrderEffects(BaseModel):
    """How much the order of two responses mattered, and what was left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    """Pairs that the judge was to decide."""
    identical: int
    """Pairs of equal responses: a tie, and nobody is asked."""
    unjudged: int
    """Pairs without a verdict; they count for nobody."""
    inconsistent: int
    """Pairs whose winner changed with the order."""
    verdicts: int
    """Single verdicts that were given."""
    tied_verdicts: int
    """Single verdicts that were ties."""
    malformed: int = 0
    """Answers of a chat model in which no verdict was found; it was asked again."""
    position_bias: float
    """(first - second) / decisive verdicts: 1 always the first, -1 always the second, 0 no preference of place."""


class ChatUsage(BaseModel):
    """What a chat model's verdicts took, whether they were asked for now or found on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    questions: int
    """Different questions with a verdict; each order is one."""
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    """At the configured prices; None when there are none."""


class PairVerdicts(NamedTuple):
    """What a pair judge said of some pairs."""

    outcomes: Floats
    """(pairs,) 1 the policy wins, 1/2 a tie, 0 it loses; between them when verdicts differ; NaN without a verdict."""
    orders: OrderEffects


class PairJudge(Protocol):
    """A judge that sees two responses at once, and may care which one it reads first: a person, a chat model."""

    name: str

    def judge(self, pairs: Sequence[Pair]) -> PairVerdicts:
        """Decide every pair.

        Raises:
            JudgeError: too many pairs are left without a verdict.
        """
        ...


def judge_both_orders(
    name: str, ask: Callable[[Sequence[Question]], Sequence[Verdict]], pairs: Sequence[Pair]
) -> PairVerdicts:
    """Ask about every pair twice, the policy first and the opponent first, and average the two answers.

    A pair that lacks either answer is left out. ``ask`` gets all questions at once, and answers in their order.

    Raises:
        DataError: an answer that is no verdict.
    """
    different = [row for row, pair in enumerate(pairs) if pair.response != pair.opponent]
    questions = [Question(pairs[row].prompt, pairs[row].response, pairs[row].opponent) for row in different]
    questions += [Question(pairs[row].prompt, pairs[row].opponent, pairs[row].response) for row in different]
    answers = list(ask(questions))
    if len(answers) != len(questions):
        raise DataError(f"judge {name}: {len(answers)} verdicts on {len(questions)} questions; expected one each")
    for answer, question in zip(answers, questions, strict=True):
        if answer not in (FIRST, TIE, SECOND, None):
            raise DataError(
                f"judge {name}: verdict {answer!r} on prompt {question.prompt[:60]!r}; expected 1, 0, -1 or None"
            )
    verdicts = np.array([np.nan if answer is None else answer for answer in answers], dtype=np.float64)
    policy_first, opponent_first = verdicts[: len(different)], verdicts[len(different) :]
    outcomes = np.full(len(pairs), 0.5)
    outcomes[different] = 0.5 + (policy_first - opponent_first) / 4
    given = verdicts[~np.isnan(verdicts)]
    return PairVerdicts(
        outcomes=outcomes,
        orders=OrderEffects(
            pairs=len(pairs),
            identical=len(pairs) - len(different),
            unjudged=int(np.isnan(outcomes).sum()),
            inconsistent=int(np.count_nonzero(policy_first * opponent_first > 0)),
            verdicts=len(given),
            tied_verdicts=int(np.count_nonzero(given == TIE)),
            position_bias=position_bias(given),
        ),
    )


def position_bias(verdicts: Floats) -> float:
    """(first - second) / decisive of single verdicts (1, 0, -1); 0 when none is decisive."""
    decisive = int(np.count_nonzero(verdicts))
    return float(verdicts.sum()) / decisive if decisive else 0.0
