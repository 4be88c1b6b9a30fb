"""What training changed: a policy against the one that it started from, prompt by prompt."""

from collections.abc import Mapping

from tasks.compare.config import CompareConfig
from tasks.compare.rulings import Contest, judges_of, resampling
from tasks.results.judges import JUDGES
from tasks.results.policies import START, names_of
from tasks.results.sheet import GREEDY, SAMPLED, PolicySheet
from tasks.results.win_rate import WinRate, score_outcomes, win_rate


def against_start(sheets: Mapping[str, PolicySheet], item: Contest, config: CompareConfig) -> dict[str, WinRate]:
    """By judge that gives scores; empty for what was not trained from PPO's start, and where that was not measured.

    The same random numbers were behind both samples, so policies that are equal tie everywhere.
    """
    if START not in sheets or item.policy not in names_of("own", "rival") or item.decoding not in (SAMPLED, GREEDY):
        return {}
    start = sheets[START].responses(item.decoding)
    found = {}
    for judge in judges_of(sheets[START]):
        scores = [response.scores[judge] for response in item.mine], [response.scores[judge] for response in start]
        how = resampling(config).named("against start", item.key, judge)
        found[judge] = win_rate(score_outcomes(*scores, config.tie_margin[JUDGES[judge].margin]), how)
    return found
