"""What every judge says of every way of answering: win rates with intervals, by prompt kind, and with length taken out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tasks.compare.config import CompareConfig
from tasks.compare.length_control import Strength, length_controlled
from tasks.compare.style_control import style_controlled
from tasks.results.comparison import Ruling
from tasks.results.judge import Pair, PairJudge, PairVerdicts
from tasks.results.judges import JUDGES
from tasks.results.sheet import GREEDY, SAMPLED, PolicySheet, Response
from tasks.results.win_rate import Floats, Interval, Resampling, WinRate, score_outcomes, win_rate


class Contest(NamedTuple):
    """One way of answering against the baseline, prompt by prompt."""

    key: str
    """In metric names: ppo_ptx, ppo_ptx_greedy, best_of_4."""
    policy: str
    decoding: str
    against: str
    """The baseline's decoding."""
    rows: list[int]
    """Places of its prompts among all test prompts."""
    mine: list[Response]
    theirs: list[Response]

    def pairs(self, baseline: PolicySheet) -> list[Pair]:
        """As a pair judge gets them."""
        opponent = f"{baseline.name}_{GREEDY}" if self.against == GREEDY else baseline.name
        return [
            Pair(baseline.samples[row].prompt_id, baseline.samples[row].prompt, a.text, b.text, (self.key, opponent))
            for row, a, b in zip(self.rows, self.mine, self.theirs, strict=True)
        ]


def contest(name: str, sheet: PolicySheet, baseline: PolicySheet, decoding: str, against: str) -> Contest:
    """Set one set of responses against one of the baseline's, on the prompts that have both."""
    rows = [row for row, sample in enumerate(sheet.samples) if decoding in sample.responses]
    return Contest(
        key=name if decoding == SAMPLED else (f"{name}_{GREEDY}" if decoding == GREEDY else decoding),
        policy=name,
        decoding=decoding,
        against=against,
        rows=rows,
        mine=[sheet.samples[row].responses[decoding] for row in rows],
        theirs=[baseline.samples[row].responses[against] for row in rows],
    )


def rule(
    contests: Sequence[Contest], baseline: PolicySheet, pair_judges: Sequence[PairJudge], config: CompareConfig
) -> dict[str, dict[str, Ruling]]:
    """Every judge's ruling on every contest: contest key -> judge -> ruling, judges from most to least trusted.

    Raises:
        JudgeError: a pair judge left too many pairs undecided.
    """
    said: dict[str, dict[str, PairVerdicts]] = {judge.name: {} for judge in pair_judges}
    for judge in pair_judges:
        for item in contests:
            said[judge.name][item.key] = judge.judge(item.pairs(baseline))
    outcomes = {judge: _scored(contests, judge, config) for judge in judges_of(baseline)} | {
        judge: {key: verdicts.outcomes for key, verdicts in found.items()} for judge, found in said.items()
    }
    found: dict[str, dict[str, Ruling]] = {item.key: {} for item in contests}
    for name in (name for name in JUDGES if name in outcomes):
        controlled = _length_controlled(contests, outcomes[name], len(baseline.samples), name, config)
        for item in contests:
            won = outcomes[name][item.key]
            if np.isfinite(won).any():
                verdicts = said[name][item.key] if name in said else None
                ruling = _ruling(item, baseline, name, won, controlled[item.key], verdicts, config)
                styled = _style_controlled(item, won, name, config)
                found[item.key][name] = ruling.model_copy(update={"style_controlled": styled})
    return found


def judges_of(sheet: PolicySheet) -> list[str]:
    """Judges that scored a policy, the most trusted first."""
    return [name for name in JUDGES if name in sheet.judges()]


def _scored(contests: Sequence[Contest], judge: str, config: CompareConfig) -> dict[str, Floats]:
    margin = config.tie_margin[JUDGES[judge].margin]
    return {
        item.key: score_outcomes([r.scores[judge] for r in item.mine], [r.scores[judge] for r in item.theirs], margin)
        for item in contests
    }


def _length_controlled(
    contests: Sequence[Contest], outcomes: Mapping[str, Floats], prompts: int, judge: str, config: CompareConfig
) -> dict[str, Interval | None]:
    """Policies that were set against the same responses are fitted together; length is counted in characters."""
    settings = config.judges.length_control
    found: dict[str, Interval | None] = {}
    for against in dict.fromkeys(item.against for item in contests):
        together = [item for item in contests if item.against == against]
        won, longer = np.full((len(together), prompts), np.nan), np.zeros((len(together), prompts))
        for place, item in enumerate(together):
            won[place, item.rows] = outcomes[item.key]
            longer[place, item.rows] = [len(a.text) - len(b.text) for a, b in zip(item.mine, item.theirs, strict=True)]
        how = resampling(config).named("length control", against, judge)
        rates = length_controlled(won, longer, Strength(settings.penalties, settings.folds), how)
        found |= dict(zip([item.key for item in together], rates, strict=True))
    return found


def _style_controlled(item: Contest, won: Floats, judge: str, config: CompareConfig) -> Interval | None:
    settings = config.judges.length_control
    how = resampling(config).named("style control", item.key, judge)
    texts = [response.text for response in item.mine], [response.text for response in item.theirs]
    return style_controlled(won, *texts, Strength(settings.penalties, settings.folds), how)


def _ruling(
    item: Contest,
    baseline: PolicySheet,
    judge: str,
    won: Floats,
    controlled: Interval | None,
    verdicts: PairVerdicts | None,
    config: CompareConfig,
) -> Ruling:
    how = resampling(config).named("win rate", item.policy, item.decoding, judge)
    judged = np.isfinite(won)
    unseen = np.array([not baseline.samples[row].repeats for row in item.rows], dtype=bool)
    held_out = np.array([baseline.samples[row].held_out for row in item.rows], dtype=bool)
    kinds = np.array([baseline.samples[row].kind for row in item.rows])

    def rate(chosen: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> WinRate | None:
        values = won[judged & chosen]
        return win_rate(values, how) if len(values) else None

    owners = [baseline.samples[row].owner for row, is_judged in zip(item.rows, judged, strict=True) if is_judged]
    everywhere = win_rate(won[judged], how, owners)
    by_kind = {str(kind): rate(kinds == kind) for kind in sorted(set(kinds.tolist())) if kind}
    return Ruling(
        win=everywhere,
        win_held_out=rate(held_out),
        win_unseen=rate(unseen),
        by_kind={kind: found for kind, found in by_kind.items() if found is not None},
        length_controlled=controlled,
        orders=verdicts.orders if verdicts else None,
    )


def resampling(config: CompareConfig) -> Resampling:
    """The bootstrap of this evaluation."""
    return Resampling(config.confidence, config.bootstrap_samples, config.seed)
