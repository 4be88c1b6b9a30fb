"""Every judge, once, from the most to the least trusted: what tables, figures, verdict, page, gate and checks know of it."""

from typing import Literal, NamedTuple

from tasks.results.judge import CHAT, HUMANS
from tasks.results.sheet import GOLD, INDEPENDENT, REWARD_MODEL


class Judge(NamedTuple):
    """One judge."""

    name: str
    """In metric names and in the configuration."""
    title: str
    """On paper."""
    short: str
    """At the head of a narrow column."""
    color: str
    asked_by: str = ""
    """Key of ``evaluation.judges`` that calls it to decide pairs; empty for a judge that gives every response a number."""
    margin: Literal["gold", "reward_model"] = "reward_model"
    """Which tie margin its scores have."""
    curve: str = ""
    """Metric of PPO's history that holds its scores; empty for a judge that does not watch."""
    optimised: bool = False
    """PPO and best-of-n optimise it, so that its praise shows only that they worked."""


JUDGES = {
    judge.name: judge
    for judge in (
        Judge(GOLD, "gold labeler", "gold", "#b7791f", margin="gold", curve="objective/score_gold"),
        Judge(HUMANS, "people", "people", "#a23b3b", asked_by="human_verdicts"),
        Judge(CHAT, "chat model", "chat", "#3b7a57", asked_by="chat"),
        Judge(INDEPENDENT, "independent reward model", "ind. RM", "#6b5b95", curve="objective/score_independent"),
        Judge(REWARD_MODEL, "reward model", "RM", "#4a6fa5", curve="objective/score", optimised=True),
    )
}
