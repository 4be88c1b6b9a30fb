"""Does the reward model learn preferences, or the taste of these labelers? Cross-validation over groups of
labelers."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tasks.engine.errors import DataError
from tasks.language.seeds import named_random
from tasks.records.rankings import ordered_pairs
from tasks.records.records import Comparison
from tasks.reward_model.accuracy import Scores, pair_accuracy, scored_pairs

Scorer = Callable[[Sequence[Comparison]], Scores]


class LabelerFold(NamedTuple):
    """One round of cross-validation; the two groups share no labeler."""

    trained_labelers: tuple[str, ...]
    held_out_labelers: tuple[str, ...]


def cross_labeler_folds(labeler_ids: Sequence[str], folds: int, seed: int) -> list[LabelerFold]:
    """Split labelers into groups of about equal data; each group is held out once.

    Args:
        labeler_ids: the labeler of each comparison, one entry per comparison.
        folds: number of groups; InstructGPT section 4.1 uses 5.
        seed: order in which labelers with equally many comparisons are dealt out.

    Raises:
        DataError: when there are fewer labelers than folds.
    """
    amounts = Counter(labeler_ids)
    if len(amounts) < folds:
        raise DataError(
            f"cross-labeler validation: found {len(amounts)} labelers in the comparisons, expected at least {folds}; "
            "use fewer folds or comparisons by more labelers"
        )
    labelers = sorted(amounts)
    named_random(seed, "reward_model/folds").shuffle(labelers)
    labelers.sort(key=lambda labeler: -amounts[labeler])  # stable: the shuffle decides among equals
    groups: list[list[str]] = [[] for _ in range(folds)]
    loads = [0] * folds
    for labeler in labelers:
        # Fewest comparisons first, then fewest labelers, so no group stays empty.
        lightest = min(range(folds), key=lambda index: (loads[index], len(groups[index])))
        groups[lightest].append(labeler)
        loads[lightest] += amounts[labeler]
    return [
        LabelerFold(
            trained_labelers=tuple(sorted(name for other in groups if other is not group for name in other)),
            held_out_labelers=tuple(sorted(group)),
        )
        for group in groups
    ]


def cross_labeler_accuracy(
    train: Sequence[Comparison],
    valid: Sequence[Comparison],
    folds: Sequence[LabelerFold],
    fit: Callable[[Sequence[Comparison]], Scorer],
) -> dict[str, float]:
    """Train once per fold without the held-out labelers and test on both groups.

    Args:
        train: comparisons to train on.
        valid: comparisons of other prompts, by the same labelers.
        folds: from ``cross_labeler_folds``.
        fit: trains a reward model from scratch on some comparisons and returns its scorer.

    Returns:
        Mean accuracy over folds and its standard error, for labelers trained on and for labelers held out.

    Raises:
        DataError: a group ordered no pair of ``valid`` strictly; found before anything is trained.

    Source: InstructGPT section 4.1 (72.4 +- 0.4 % and 69.6 +- 0.9 %).
    """
    shares: dict[str, list[float]] = {"trained_labelers": [], "heldout_labelers": []}
    for fold in folds:
        for members in fold:
            if not any(ordered_pairs(item.ranks) for item in valid if item.labeler_id in members):
                raise DataError(
                    f"cross-labeler validation: labelers {', '.join(members)} ordered no pair of the validation "
                    f"comparisons, expected at least one in each of {len(folds)} groups; use fewer folds or more comparisons"
                )
    for fold in folds:
        scorer = fit([comparison for comparison in train if comparison.labeler_id in fold.trained_labelers])
        for name, members in (
            ("trained_labelers", fold.trained_labelers),
            ("heldout_labelers", fold.held_out_labelers),
        ):
            tested = [comparison for comparison in valid if comparison.labeler_id in members]
            shares[name].append(pair_accuracy(scored_pairs(tested, scorer(tested))))
    result = {}
    for name, values in shares.items():
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
        result[f"cross_labeler/accuracy_{name}"] = mean
        result[f"cross_labeler/standard_error_{name}"] = math.sqrt(variance / len(values))
    return result
