"""Rankings as training sees them: ordered pairs, token sequences, whole prompts in batches."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from tasks.engine.errors import DataError
from tasks.engine.ranks import here
from tasks.language.seeds import named_random
from tasks.language.text import encode_prompt, encode_response
from tasks.language.token_table import TokenTable
from tasks.language.types import PreTrainedTokenizerBase
from tasks.records.choices import Margin
from tasks.records.records import Comparison

if TYPE_CHECKING:  # who counts rankings needs no tensors
    from torch import Tensor

TieNormaliser = Literal["all_pairs", "surviving_pairs"]


class RankedPairs(NamedTuple):
    """Every ordered pair of a batch of ranked prompts; indices point into the concatenated completions."""

    winners: "Tensor"  # (M,) int64
    losers: "Tensor"  # (M,) int64
    weights: "Tensor"  # (M,) fp64, 1/Z of the pair's prompt
    distances: "Tensor"  # (M,) int64, places between loser and winner; neighbours are 1 apart


def ordered_pairs(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """(winner, loser) for every pair that the ranking orders; tied pairs are left out (InstructGPT C.2)."""
    count = len(ranks)
    pairs = []
    for first in range(count):
        for second in range(first + 1, count):
            if ranks[first] < ranks[second]:
                pairs.append((first, second))
            elif ranks[second] < ranks[first]:
                pairs.append((second, first))
    return pairs


def dense_ranks(ranks: Sequence[int]) -> list[int]:
    """The same order without gaps: 1, 2, ..."""
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    return [places[rank] for rank in ranks]


def orders_something(comparison: Comparison) -> bool:
    """Whether a ranking puts one text before another; without such rankings there is nothing to learn."""
    pairs = ordered_pairs(comparison.ranks)
    return any(comparison.completions[winner] != comparison.completions[loser] for winner, loser in pairs)


def require_signal(comparisons: Sequence[Comparison], which: str) -> None:
    """Refuse rankings from which no model can learn.

    Raises:
        DataError: how many there are, and of which kind.
    """
    if any(map(orders_something, comparisons)):
        return
    raise no_signal(len(comparisons), sum(map(compares_with_itself, comparisons)), which)


def no_signal(rankings: int, same: int, which: str) -> DataError:
    """What to say of rankings of which none orders two different texts; ``same`` of them compare a text with itself."""
    return DataError(
        f"{which} comparisons: none of the {rankings} rankings orders two different responses "
        f"({rankings - same} ties, {same} of equal texts), expected some that do: a model learns nothing from "
        "these; give comparisons with a better and a worse response"
    )


def compares_with_itself(comparison: Comparison) -> bool:
    """Whether a ranking gives equal texts different ranks, or knows one text only; space around a text does not count."""
    ranks: dict[str, set[int]] = {}
    for text, rank in zip(comparison.completions, comparison.ranks, strict=True):
        ranks.setdefault(text.strip(), set()).add(rank)
    return len(ranks) == 1 or any(len(found) > 1 for found in ranks.values())


def rank_pairs(rankings: Sequence[Sequence[int]], tie_normaliser: TieNormaliser) -> RankedPairs:
    """Collect the pairs of several prompts whose completions lie one after another.

    Args:
        rankings: ranks of each prompt's completions; 1 is best, equal ranks are ties.
        tie_normaliser: ``all_pairs`` divides by K(K-1)/2, so a ranking with ties weighs less, as the formula is
            printed; ``surviving_pairs`` divides by the pairs that are left.
    """
    import torch

    winners: list[int] = []
    losers: list[int] = []
    weights: list[float] = []
    distances: list[int] = []
    start = 0
    for ranks in rankings:
        pairs = ordered_pairs(ranks)
        normaliser = len(ranks) * (len(ranks) - 1) // 2 if tie_normaliser == "all_pairs" else len(pairs)
        for winner, loser in pairs:
            winners.append(start + winner)
            losers.append(start + loser)
            weights.append(1.0 / normaliser)
            distances.append(ranks[loser] - ranks[winner])
        start += len(ranks)
    return RankedPairs(
        torch.tensor(winners, dtype=torch.long),
        torch.tensor(losers, dtype=torch.long),
        torch.tensor(weights, dtype=torch.float64),
        torch.tensor(distances, dtype=torch.long),
    )


SMALLEST_STEP, LARGEST_MARGIN = 1.0 / 3.0, 1.0


def margins(distances: "Tensor", kind: Margin) -> "Tensor":
    """(M,) places between the two of each pair -> (M,) fp64, how far apart their scores should be.

    ``none`` asks for nothing. ``rank`` asks for 0 between neighbours, 1/3 with one place between them, 2/3 with two, and 1 with
    more: Llama 2's "small" margins for its four ratings, from "negligibly" to "significantly better", read off a ranking.

    Source: Llama 2 (arXiv:2307.09288) section 3.2.2 and appendix A.3.3; that a place counts as a rating is our reading.
    """
    import torch

    if kind == "none":
        return torch.zeros_like(distances, dtype=torch.float64)
    return ((distances.double() - 1.0) * SMALLEST_STEP).clamp(max=LARGEST_MARGIN)


class SequenceLimits(Protocol):
    """What a stage's configuration says of the longest sequences."""

    @property
    def prompt_tokens(self) -> int:
        """Longest prompt."""
        ...

    @property
    def response_tokens(self) -> int:
        """Longest response, EOS included."""
        ...


class RankedSequences(NamedTuple):
    """One batch element as tokens: a prompt and its ranked completions."""

    prompt: list[int]
    completions: list[list[int]]
    ranks: list[int]

    @property
    def tokens(self) -> int:
        """What reading every completion with its prompt takes."""
        return sum(len(self.prompt) + len(completion) for completion in self.completions)


def ranked_table(elements: Iterable[RankedSequences]) -> TokenTable[RankedSequences]:
    """Batch elements in little memory."""
    return TokenTable(
        elements,
        lambda element: (element.prompt, element.ranks, *element.completions),
        lambda lists: RankedSequences(lists[0], lists[2:], lists[1]),
    )


def tokens_of(comparison: Comparison, tokenizer: PreTrainedTokenizerBase, config: SequenceLimits) -> RankedSequences:
    """Encode one comparison; a completion that was cut off keeps its last token and gets no EOS."""
    completions = []
    for text, finished in zip(comparison.completions, comparison.ended, strict=True):
        ids = encode_response(tokenizer, text, comparison.prompt.text)
        completions.append((ids if finished else ids[:-1] or ids)[: config.response_tokens])
    return RankedSequences(
        encode_prompt(tokenizer, comparison.prompt.text, config.prompt_tokens),
        completions,
        dense_ranks(comparison.ranks),
    )


def group_prompts(elements: Sequence[RankedSequences], tokens_per_microbatch: int) -> list[list[int]]:
    """Group whole prompts so that each group's completions, padded, fit the token budget; at least one prompt
    each."""

    def width(element: RankedSequences) -> int:
        return len(element.prompt) + max(len(ids) for ids in element.completions)

    groups: list[list[int]] = []
    completions = 0
    for index in sorted(range(len(elements)), key=lambda index: width(elements[index])):
        # Widths ascend, so this element's width is the padded width of the group it joins.
        count = len(elements[index].completions)
        if groups and (completions + count) * width(elements[index]) <= tokens_per_microbatch:
            groups[-1].append(index)
            completions += count
        else:
            groups.append([index])
            completions = count
    return groups


def my_prompts(elements: Sequence[RankedSequences], tokens_per_microbatch: int) -> list[list[int]]:
    """``group_prompts`` of this rank's elements."""
    mine = here().deal([element.tokens for element in elements])
    groups = group_prompts([elements[index] for index in mine], tokens_per_microbatch)
    return [[mine[place] for place in group] for group in groups]


def epoch_batches(elements: int, *, epochs: int, batch_size: int, seed: int) -> list[list[int]]:
    """The elements of every optimizer step: each epoch visits each element once, in a fresh order."""
    draws = named_random(seed, "rankings/order")
    batches = []
    for _ in range(epochs):
        order = list(range(elements))
        draws.shuffle(order)
        batches += [order[start : start + batch_size] for start in range(0, elements, batch_size)]
    return batches
