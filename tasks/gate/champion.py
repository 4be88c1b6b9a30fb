"""The candidate against the registered champion, on the same prompts and by the same judge."""

from tasks.engine.errors import DataError
from tasks.results.decision import GateCheck
from tasks.results.judges import JUDGES
from tasks.results.sheet import GREEDY, SAMPLED, PolicySheet
from tasks.results.win_rate import Resampling, score_outcomes, win_rate

REPLICATES = 2000
TIE = 1e-4
"""Scores that differ by less are a tie: what rounding leaves of equal responses."""


def against_champion(
    candidate: PolicySheet, champion: PolicySheet, judge: str, decodings: list[str], margin: float, confidence: float
) -> list[GateCheck]:
    """One check a decoding: the lower end of the paired win rate must not lie further than ``margin`` below one half.

    A judge that decides pairs has left no scores in the sheets; the first that has is asked instead, and named.

    Raises:
        DataError: the two were measured on different prompts.
    """
    if [row.prompt_id for row in candidate.samples] != [row.prompt_id for row in champion.samples]:
        raise DataError(
            "gate: the champion was measured on other prompts than the candidate; evaluate both on the same data"
        )
    scorers = [name for name in JUDGES if name in candidate.judges()]
    by = judge if judge in scorers else scorers[0]
    checks = []
    for decoding in decodings:
        known = {"sampled": SAMPLED, "greedy": GREEDY}[decoding]
        mine, theirs = ([response.scores[by] for response in sheet.responses(known)] for sheet in (candidate, champion))
        rate = win_rate(
            score_outcomes(mine, theirs, TIE), Resampling(confidence, REPLICATES, 0).named("champion", decoding)
        )
        low, limit = rate.bootstrap.low, 0.5 - margin
        reason = (
            f"lower end of the win rate against the champion on the same {rate.prompts} prompts, {decoding}, by {by}: "
            f"{100 * low:.1f} %, expected at least {100 * limit:.1f} % (evaluation.gate.champion_margin)"
        )
        checks.append(
            GateCheck(
                limit_name="champion_margin",
                metric=f"win_rate_vs_champion/{decoding}/{by}_low",
                found=low,
                limit=limit,
                passed=low >= limit,
                reason=reason,
            )
        )
    return checks
