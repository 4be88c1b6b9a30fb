"""What training changed: a policy against the one that it started from, prompt by prompt; and against one from elsewhere."""

from collections.abc import Mapping

from tasks.compare.config import CompareConfig
from tasks.compare.rulings import Contest, judges_of, resampling
from tasks.results.judges import JUDGES
from tasks.results.policies import START, YARDSTICK, names_of
from tasks.results.sheet import GREEDY, SAMPLED, PolicySheet
from tasks.results.win_rate import WinRate, score_outcomes, win_rate


def against_start(sheets: Mapping[str, PolicySheet], item: Contest, config: CompareConfig) -> dict[str, WinRate]:
    """By judge that gives scores; empty for what was not trained from PPO's start, and where that was not measured.

    The same random numbers were behind both samples, so policies that are equal tie everywhere.
    """
    return _against(sheets, item, START, config) if item.policy in names_of("own", "rival") else {}


def against_yardstick(sheets: Mapping[str, PolicySheet], item: Contest, config: CompareConfig) -> dict[str, WinRate]:
    """By judge that gives scores; empty where there is no yardstick, and for the yardsticks themselves."""
    return {} if item.policy in names_of("yardstick") else _against(sheets, item, YARDSTICK, config)


def _against(sheets: Mapping[str, PolicySheet], item: Contest, other: str, config: CompareConfig) -> dict[str, WinRate]:
    """Against the responses of ``other`` at the same decoding, on the same prompts."""
    if other not in sheets or item.decoding not in (SAMPLED, GREEDY):
        return {}
    theirs = sheets[other].responses(item.decoding)
    found = {}
    for judge in judges_of(sheets[other]):
        scores = [response.scores[judge] for response in item.mine], [response.scores[judge] for response in theirs]
        how = resampling(config).named("against start" if other == START else "against yardstick", item.key, judge)
        found[judge] = win_rate(score_outcomes(*scores, config.tie_margin[JUDGES[judge].margin]), how)
    return found
