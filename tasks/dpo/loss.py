"""Losses of direct preference optimisation on summed log-probabilities of whole completions."""

from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional


class PreferenceLosses(NamedTuple):
    """What each pair costs, and the rewards that the policy implies."""

    losses: Tensor  # (M,)
    log_ratio_gaps: Tensor  # (M,) how much more the policy than the reference prefers the chosen completion, in nats
    chosen_rewards: Tensor  # (M,) beta * log(policy / reference) of the chosen completion
    rejected_rewards: Tensor  # (M,)


def preference_losses(
    policy_chosen: Tensor,  # (M,) log-probability of the whole completion, EOS included
    policy_rejected: Tensor,  # (M,)
    reference_chosen: Tensor,  # (M,)
    reference_rejected: Tensor,  # (M,)
    *,
    beta: float,
    kind: Literal["sigmoid", "ipo"],
    label_smoothing: float,
    margins: Tensor | float = 0.0,  # (M,)
) -> PreferenceLosses:
    """One loss per pair, with d = log_ratio_gaps.

    Args:
        policy_chosen: differentiable, as is ``policy_rejected``.
        policy_rejected: of the completion that the labeler ranked lower.
        reference_chosen: constants, as ``reference_rejected``.
        reference_rejected: under the policy that training starts from.
        beta: price of one nat away from the reference.
        kind: ``sigmoid`` is -(1 - e) log sigmoid(beta d - m) - e log sigmoid(-beta d - m); ``ipo`` is (d - 1 / (2 beta))^2,
            which has a finite optimum on pairs that are always ordered alike.
        label_smoothing: e, the share of labels taken to be wrong; 0 is DPO, above it conservative DPO. ``ipo`` has none.
        margins: m, how far apart the implicit rewards should be, whichever label is right; ``ipo`` has a target of its own.

    Source: Rafailov et al. 2023 (arXiv:2305.18290) eq. 7; Mitchell 2023, "A note on DPO with noisy preferences"; Azar et
    al. 2023 (arXiv:2310.12036) eq. 17; the margin is Llama 2's (arXiv:2307.09288), in DPO Amini et al. 2024 (2402.10571).
    """
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    gaps = chosen - rejected
    if kind == "ipo":
        losses = (gaps - 1.0 / (2.0 * beta)).square()
    else:
        agree, disagree = functional.softplus(margins - beta * gaps), functional.softplus(margins + beta * gaps)
        losses = (1.0 - label_smoothing) * agree + label_smoothing * disagree
    return PreferenceLosses(losses, gaps, beta * chosen.detach(), beta * rejected.detach())
