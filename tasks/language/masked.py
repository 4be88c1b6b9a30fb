"""Sums, means and variances over the entries a mask selects.

``mask`` is True (or non-zero) on the entries that count. Entries outside it may hold anything, NaN included: they are
replaced before they are used, and results are exactly 0 there. A mask that selects nothing gives NaN.
"""

import torch
from torch import Tensor

VARIANCE_EPSILON = 1e-8
"""Added to the variance before its square root, as in every public implementation of this recipe."""


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:  # ()
    """Sum of ``x`` where ``mask`` is True."""
    return _select(x, mask).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:  # ()
    """Mean of ``x`` where ``mask`` is True."""
    return masked_sum(x, mask) / mask.bool().sum()


def masked_var(x: Tensor, mask: Tensor, unbiased: bool = False) -> Tensor:  # ()
    """Variance of ``x`` where ``mask`` is True.

    ``unbiased`` divides by n - 1 instead of n; with one entry that is 0 / 0, so NaN.
    """
    count = mask.bool().sum()
    deviations = _select(x - masked_mean(x, mask), mask)
    return deviations.square().sum() / (count - 1 if unbiased else count)


def whiten(x: Tensor, mask: Tensor, *, unbiased: bool = False) -> Tensor:  # the shape of x
    """Shift and scale the selected entries to mean 0 and variance 1; exactly 0 elsewhere.

    Source: advantages in lm-human-preferences, which uses the biased variance; docs/method.md D.6.
    """
    centred = _select(x - masked_mean(x, mask), mask)
    return centred * torch.rsqrt(masked_var(x, mask, unbiased) + VARIANCE_EPSILON)


def scale_to_unit_variance(x: Tensor, mask: Tensor, *, unbiased: bool = False) -> Tensor:  # the shape of x
    """Scale the selected entries about their mean to variance 1 and keep that mean; exactly 0 elsewhere.

    The mean is kept because a shift of all rewards would change how much a long response earns.

    Source: rewards in lm-human-preferences; docs/method.md D.6.
    """
    return _select(whiten(x, mask, unbiased=unbiased) + masked_mean(x, mask), mask)


def _select(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.bool(), x, torch.zeros((), dtype=x.dtype, device=x.device))
