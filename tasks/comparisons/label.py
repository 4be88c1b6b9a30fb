"""Have candidates ranked: one labeler per prompt, as in InstructGPT, or every labeler, to measure agreement."""

import json
import random
from collections.abc import Iterator, Sequence

from tasks.comparisons.agreement import ranks_of_scores
from tasks.comparisons.sample import Candidates
from tasks.language.seeds import named_random
from tasks.records.records import Comparison
from tasks.sandbox.gold import gold_score
from tasks.sandbox.groups import group_of
from tasks.sandbox.labelers import Simulated
from tasks.sandbox.world import World

GOLD_LABELER = "gold"
SAMPLED_FROM = "sft"


def assign_labelers(groups: Sequence[str | None], labelers: Sequence[Simulated], seed: int) -> list[Simulated]:
    """One labeler per prompt: everyone gets equally many, give or take one, in random order.

    Args:
        groups: whose labelers rank each prompt; None takes any.
        labelers: of all groups.
        seed: of the order.
    """
    order = named_random(seed, "assignment")
    turns: dict[str | None, Iterator[Simulated]] = {}
    for group in dict.fromkeys(groups):
        members = [one for one in labelers if group in (None, one.group)]
        mine = [members[index % len(members)] for index in range(groups.count(group))]
        order.shuffle(mine)
        turns[group] = iter(mine)
    return [next(turns[group]) for group in groups]


def label(candidates: Sequence[Candidates], labelers: Sequence[Simulated], seed: int) -> list[Comparison]:
    """Rank each prompt's candidates by one labeler (InstructGPT section 3.4: in most cases one labeler per
    item)."""
    assigned = assign_labelers([group_of(item.prompt) for item in candidates], labelers, seed)
    return [
        _ranked_by(labeler, item, named_random(seed, f"noise/{item.prompt.prompt_id}"))
        for item, labeler in zip(candidates, assigned, strict=True)
    ]


def label_by_everyone(candidates: Sequence[Candidates], labelers: Sequence[Simulated], seed: int) -> list[Comparison]:
    """Rank each prompt's candidates by every labeler, each with noise of their own."""
    return [
        _ranked_by(labeler, item, named_random(seed, f"noise/{item.prompt.prompt_id}/{labeler.labeler_id}"))
        for item in candidates
        for labeler in labelers
    ]


def label_by_gold(candidates: Sequence[Candidates], world: World) -> list[Comparison]:
    """Rank by the sandbox's true utility; equal utilities tie."""
    comparisons = []
    for item in candidates:
        utilities = [
            gold_score(world, item.prompt, completion, finished).total
            for completion, finished in zip(item.completions, item.finished, strict=True)
        ]
        comparisons.append(_comparison(item, ranks_of_scores(utilities), GOLD_LABELER))
    return comparisons


def rankings_by_labeler(comparisons: Sequence[Comparison]) -> dict[str, dict[str, list[int]]]:
    """``[labeler_id][item] -> ranks``, the form in which agreement is measured.

    An item is a prompt with its set of completions, in whatever order they were shown; two labelers share an item
    only when they ranked the very same completions.
    """
    rankings: dict[str, dict[str, list[int]]] = {}
    for comparison in comparisons:
        shown = sorted(zip(comparison.completions, comparison.ended, comparison.ranks, strict=True))
        item = json.dumps([comparison.prompt.prompt_id, [response[:2] for response in shown]])
        rankings.setdefault(comparison.labeler_id, {})[item] = [rank for _, _, rank in shown]
    return rankings


def _ranked_by(labeler: Simulated, item: Candidates, noise: random.Random) -> Comparison:
    # A generator per item: whatever else is labelled, this labeler says the same about this item.
    ranks = labeler.rank(item.prompt, item.completions, item.finished, noise)
    return _comparison(item, ranks, labeler.labeler_id)


def _comparison(item: Candidates, ranks: list[int], labeler_id: str) -> Comparison:
    return Comparison(
        prompt=item.prompt,
        completions=item.completions,
        ranks=ranks,
        labeler_id=labeler_id,
        source_policy=[SAMPLED_FROM] * len(item.completions),
        finished=item.finished,
    )
