"""Where the scores' zero lies, and how far their differences can be read as probabilities."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tasks.engine.errors import DataError


def zero_mean_bias(demonstration_scores: Tensor) -> float:
    """What to subtract from every score so that the demonstrations average 0.

    The ranking loss leaves the zero open. Only a shift: the scale stays what training made it, because beta is
    priced in score points. ``demonstration_scores`` is (B,), scores of the demonstrations before the shift.

    Source: InstructGPT appendix C.2.
    """
    return float(demonstration_scores.double().mean())


class Standardisation(NamedTuple):
    """Scores become gain * (score - shift)."""

    gain: float
    shift: float


def unit_variance(scores: Tensor) -> Standardisation:
    """The gain and shift that give ``scores`` (B,) mean 0 and (biased) variance 1.

    Raises:
        DataError: the scores do not differ.

    Source: lm-human-preferences, 2019, on samples of the initial policy (docs/method.md C.4).
    """
    spread = float(scores.double().std(correction=0))
    if not spread > 0:
        raise DataError(
            f"reward model: {len(scores)} completions all score {float(scores[0]):g}, so no gain makes their variance 1; "
            "use reward_model.normalisation=demonstrations or look at the comparisons"
        )
    return Standardisation(1.0 / spread, float(scores.double().mean()))


class Calibration(NamedTuple):
    """How sigmoid(score difference) compares with what labelers chose."""

    expected_calibration_error: float
    brier: float
    log_loss: float
    accuracy: float


def preference_probabilities(score_differences: Tensor) -> Tensor:
    """Probability that the first of each pair is preferred: sigmoid(r_first - r_second). Shapes (M,) -> (M,)."""
    return torch.sigmoid(score_differences.double())


def calibration(
    score_differences: Tensor, first_preferred: Tensor, edges: Sequence[float] | None, bins: int = 10
) -> Calibration:
    """Compare predicted preferences with observed ones.

    Args:
        score_differences: (M,) r_first - r_second.
        first_preferred: (M,) 1 where the labeler preferred the first, else 0. Which one is called first does not
        matter.
        edges: inner and outer edges of the confidence bins, such as ``[0.5, 0.7, 1.0]``; None makes bins of equal
        count.
        bins: number of equal-count bins when ``edges`` is None.

    Returns:
        The expected calibration error over the confidence max(p, 1-p), weighted by bin size; the Brier score and
        the log loss of p, and the accuracy with p > 1/2 (p = 1/2 counts as wrong).

    Source: docs/method.md C.5; Guo et al. 2017 for the error.
    """
    labels = first_preferred.double()
    predicted = preference_probabilities(score_differences)
    confidence = torch.maximum(predicted, 1 - predicted)
    correct = ((score_differences.double() * (2 * labels - 1)) > 0).double()
    error = 0.0
    for members in _bins(confidence, edges, bins):
        if len(members):
            gap = confidence[members].mean() - correct[members].mean()
            error += float(gap.abs()) * len(members) / len(confidence)
    log_likelihood = functional.logsigmoid(score_differences.double() * (2 * labels - 1))
    return Calibration(
        expected_calibration_error=error,
        brier=float(((predicted - labels) ** 2).mean()),
        log_loss=float(-log_likelihood.mean()),
        accuracy=float(correct.mean()),
    )


def _bins(confidence: Tensor, edges: Sequence[float] | None, bins: int) -> list[Tensor]:
    """Indices of the members of each bin; the last of the given bins includes its upper edge."""
    if edges is None:
        # tensor_split makes the bins differ by at most one member; a stable sort keeps the result reproducible.
        return list(torch.tensor_split(torch.argsort(confidence, stable=True), bins))
    inner = torch.tensor(list(edges[1:-1]), dtype=confidence.dtype)
    bin_of = torch.bucketize(confidence, inner, right=True)
    return [torch.nonzero(bin_of == index).flatten() for index in range(len(edges) - 1)]
