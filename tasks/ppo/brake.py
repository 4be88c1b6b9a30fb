"""The brake: what is done once a PPO run spends KL that a held-out judge does not repay.

An independent reward model likes most of what its twin likes, so its score seldom falls while a policy is over-optimised: what
gives the policy away is the KL that it pays for each further point. The brake therefore follows the *worth* of the policy: the
independent judge's score, in its standard deviations at the start, minus ``brake_price`` for each nat of KL. It holds once the
worth has fallen below its best by ``brake_fall``, or entropy or length leave the sentinel's limits. It never reads gold.

Pure functions over the run's history, as ``sentinel``'s, and the few that touch the learner.

Source: the price of distance is that of Gao et al. 2023 (arXiv:2210.10760), where gold rises with the root of the KL and then
falls; paying it to a judge that is not optimised is ours.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tasks.language.optimization import Ema, trained
from tasks.language.shards import part_of
from tasks.ppo.config import PPOConfig
from tasks.ppo.judged import JudgedWeights
from tasks.ppo.rollout import Networks
from tasks.ppo.sentinel import (
    KL,
    Alarm,
    History,
    Row,
    entropy_collapse,
    held_out_score,
    held_out_spread,
    length_drift,
    window_means,
)
from tasks.ppo.update import Optimizers

JUDGE = "independent"
"""The only judge that the brake asks."""
SCORE, SPREAD = held_out_score(JUDGE), held_out_spread(JUDGE)


class Kept(NamedTuple):
    """The weights of the latest window whose worth is as good as the highest so far."""

    iteration: int
    weights: dict[str, Tensor]


class Braked(Protocol):
    """What the brake touches of a learner."""

    beta: float
    networks: Networks
    optimizers: Optimizers
    ema: Ema


def scorings(history: History) -> list[Row]:
    """The iterations that the judge scored."""
    return [row for row in history if SCORE in row]


def worths(history: History, window: int, price: float) -> list[float]:
    """Of every ``window`` consecutive scorings, oldest first; empty before the first whole window.

    A judge that scored all of the first window's responses alike tells nothing apart, and repays no KL.
    """
    scores, kl, spread = (window_means(scorings(history), name, window) for name in (SCORE, KL, SPREAD))
    return [(score / spread[0] if spread[0] else 0.0) - price * nats for score, nats in zip(scores, kl, strict=True)]


def noise(history: History, config: PPOConfig) -> float:
    """Standard error of the last window's mean score, in the judge's standard deviations at the start.

    Source: the one-standard-error rule of Breiman et al. 1984, there for the simplest model that is as good as the best.
    """
    window = config.sentinel.window
    spreads = window_means(scorings(history), SPREAD, window)
    return spreads[-1] / spreads[0] / math.sqrt(window * config.episodes_per_iteration) if spreads[0] else 0.0


def overspent(history: History, window: int, price: float, limit: float) -> Alarm | None:
    """The worth is below its best by at least ``limit``; nothing is found before two whole windows."""
    found = worths(history, window, price)
    if len(found) <= window:
        return None
    fall = max(found) - found[-1]
    if fall < limit:
        return None
    nats = window_means(scorings(history), KL, window)[-1]
    return Alarm(
        "worth",
        fall,
        limit,
        f"the {JUDGE} score minus {price:g} a nat fell {fall:.2f} standard deviations below its best, at a KL of {nats:.1f} "
        "nats: the KL that is spent is no longer repaid",
    )


def held(history: History, config: PPOConfig, since: int) -> Alarm | None:
    """Whether the brake holds at the end of ``history``; the first sign that it finds.

    After an intervention in iteration ``since`` (0 for none) it lets ``sentinel.window`` scorings pass, so that a whole window
    shows what came of it.
    """
    window, limits = config.sentinel.window, config.sentinel
    scored = scorings(history)
    if not scored or scored[-1] is not history[-1] or sum(row["step"] > since for row in scored) < window * (since > 0):
        return None
    signs = [overspent(history, window, config.brake_price, config.brake_fall)]
    if limits.entropy_left is not None:
        signs.append(entropy_collapse(history, window, limits.entropy_left))
    if limits.length_factor is not None:
        signs.append(length_drift(history, window, limits.length_factor))
    return next((sign for sign in signs if sign is not None), None)


def keep_best(history: History, config: PPOConfig, kept: Kept | None, judged: JudgedWeights | None) -> Kept | None:
    """The weights that were scored, if their worth is not told from the highest so far: of windows that differ by less than their
    noise the latest, which has more of what is optimised. None for a brake that needs none."""
    if SCORE not in history[-1]:
        return kept
    found = worths(history, config.sentinel.window, config.brake_price)
    if not found or found[-1] < max(found) - noise(history, config):
        return kept
    return Kept(int(history[-1]["step"]), judged.copy() if judged else {})


@torch.no_grad()
def return_to(learner: Braked, weights: dict[str, Tensor]) -> None:
    """Put ``weights`` into the policy and its average; the policy's optimizer begins anew, for its moments belong elsewhere."""
    for name, parameter in trained(learner.networks.policy):  # what is frozen stays as it is
        parameter.copy_(part_of(weights[name], parameter))
    for name, average in learner.ema.average.items():
        average.copy_(part_of(weights[name], average))
    optimizer = learner.optimizers.policy.optimizer
    optimizer.state.clear()
    for group in optimizer.param_groups:
        if "steps" in group:
            group["steps"] = 0
