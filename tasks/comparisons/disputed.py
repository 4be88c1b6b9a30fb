"""Adversarial rankings: of many responses, those that two reward models judge most differently are ranked.

A policy finds responses that the reward model it was optimised against overrates. A second reward model, that nothing was
optimised against, does not overrate the same ones, so that the difference of the two shows where a label would teach most.

Source: InstructGPT section 5.4 proposes that labelers find a model's worst behaviour, which is labeled and added to the data;
that two reward models find it is ours.
"""

import statistics
from collections.abc import Sequence

from tasks.comparisons.sample import Candidates
from tasks.engine.config import RuntimeConfig
from tasks.language.models import ScalarModel
from tasks.language.scorer import score_rows
from tasks.language.types import PreTrainedTokenizerBase
from tasks.records.rankings import SequenceLimits, tokens_of
from tasks.records.records import Comparison

Scores = Sequence[Sequence[float]]
"""Of each prompt's responses."""


def scores_of(
    model: ScalarModel,
    candidates: Sequence[Candidates],
    tokenizer: PreTrainedTokenizerBase,
    limits: SequenceLimits,
    runtime: RuntimeConfig,
) -> list[list[float]]:
    """A reward model's score of every response, prompt by prompt."""
    places, prompts, responses = [], [], []
    for place, one in enumerate(candidates):
        count = len(one.completions)
        row = Comparison(
            prompt=one.prompt, completions=one.completions, ranks=[1] * count, labeler_id="none", finished=one.finished
        )
        tokens = tokens_of(row, tokenizer, limits)
        places += [place] * count
        prompts += [tokens.prompt] * count
        responses += tokens.completions
    found: list[list[float]] = [[] for _ in candidates]
    scored = score_rows(model, prompts, responses, int(tokenizer.pad_token_id), runtime)
    for place, score in zip(places, scored, strict=True):
        found[place].append(score)
    return found


def overrated(optimised: Scores, held_out: Scores) -> list[list[float]]:
    """How much more each response is worth to the optimised model, each model in its standard deviations over all responses."""
    first, second = (_spread(scores) for scores in (optimised, held_out))
    return [
        [one / first - other / second for one, other in zip(ones, others, strict=True)]
        for ones, others in zip(optimised, held_out, strict=True)
    ]


def most_disputed(gaps: Sequence[float], count: int) -> list[int]:
    """``count`` places, half with the largest gaps and half with the smallest, in their own order.

    Two responses are disputed as far as their gaps differ, so both ends are needed: what the optimised model overrates, and
    what should have been preferred to it.
    """
    order = sorted(range(len(gaps)), key=lambda place: (-gaps[place], place))
    count = min(count, len(order))
    low = count // 2
    return sorted(order[: count - low] + order[len(order) - low :])


def disputed_share(optimised: Scores, held_out: Scores) -> float:
    """Share of the pairs of responses to one prompt that the two models order in opposite ways."""
    opposite = pairs = 0
    for ones, others in zip(optimised, held_out, strict=True):
        for left in range(len(ones)):
            for right in range(left):
                pairs += 1
                opposite += (ones[left] - ones[right]) * (others[left] - others[right]) < 0
    return opposite / pairs if pairs else 0.0


def _spread(scores: Scores) -> float:
    """1 where a model gives all responses the same score, which then counts for nothing."""
    return statistics.pstdev([score for row in scores for score in row]) or 1.0
