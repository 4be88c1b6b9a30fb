"""Which response is learned from: the best usable one, and as control any usable one."""

import random

from tasks.rejection_sampling.pick import Candidate, pick_best, pick_by_lot

CUT_OFF = Candidate("very long", 9.0, usable=False)


def usable(text: str, score: float) -> Candidate:
    return Candidate(text, score, usable=True)


def test_the_best_is_the_highest_score_among_those_that_ended() -> None:
    first, equal = usable("a", 1.0), usable("b", 1.0)
    assert pick_best([usable("c", -3.0), CUT_OFF, first, equal]) is first
    assert pick_best([CUT_OFF]) is None and pick_best([]) is None


def test_lots_reach_every_usable_response_alike_and_no_other() -> None:
    candidates = [usable("a", 0.0), CUT_OFF, usable("b", 5.0)]
    lots = random.Random(3)
    drawn = [pick_by_lot(candidates, lots) for _ in range(2000)]
    counts = {pick.text: drawn.count(pick) for pick in drawn if pick is not None}
    assert set(counts) == {"a", "b"} and abs(counts["a"] - 1000) < 3 * 2000**0.5 / 2
    assert pick_by_lot([CUT_OFF], lots) is None
