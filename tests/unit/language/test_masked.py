import math

import pytest
import torch

from tasks.language.masked import masked_mean, masked_sum, masked_var, scale_to_unit_variance, whiten

X = torch.tensor([[1.0, 5.0, float("nan")], [3.0, float("inf"), 7.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, False, True]])  # selects 1, 5, 3, 7: mean 4, squared deviations 20


def test_only_selected_entries_count_even_beside_nan() -> None:
    assert masked_sum(X, MASK).item() == 16.0
    assert masked_mean(X, MASK).item() == 4.0
    assert masked_var(X, MASK).item() == 5.0
    assert masked_var(X, MASK, unbiased=True).item() == pytest.approx(20 / 3)


def test_integer_and_float_masks_are_the_same_as_boolean_ones() -> None:
    for kind in (torch.int64, torch.float32):
        assert masked_mean(X, MASK.to(kind)).item() == 4.0


@pytest.mark.parametrize("unbiased", [False, True])
def test_whitening_gives_mean_0_and_variance_1(unbiased: bool) -> None:
    whitened = whiten(X, MASK, unbiased=unbiased)
    selected = whitened[MASK]
    assert selected.mean().item() == pytest.approx(0.0, abs=1e-9)
    assert selected.var(unbiased=unbiased).item() == pytest.approx(1.0, abs=1e-6)
    assert (whitened[~MASK] == 0).all()


@pytest.mark.point(42)
def test_scaling_keeps_the_mean() -> None:
    scaled = scale_to_unit_variance(X, MASK)
    assert scaled[MASK].mean().item() == pytest.approx(4.0)
    assert scaled[MASK].var(unbiased=False).item() == pytest.approx(1.0, abs=1e-6)
    assert (scaled[~MASK] == 0).all()


def test_junk_outside_the_mask_does_not_reach_gradients() -> None:
    x = X.clone().requires_grad_()
    (whiten(x, MASK) ** 3).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and (x.grad[~MASK] == 0).all()


def test_an_empty_selection_is_not_a_number() -> None:
    assert math.isnan(masked_mean(X, torch.zeros_like(MASK)).item())
