"""Length-controlled win rates against an independent computation (tests/golden/length_control.json says how)."""

import json
from pathlib import Path

import numpy as np

from tasks.compare.length_control import Strength, fit_logistic, length_controlled, length_term, prompt_difficulty
from tasks.results.win_rate import Resampling

GOLDEN = json.loads((Path(__file__).parent / "length_control.json").read_text())
OUTCOMES = np.array(GOLDEN["inputs"]["outcomes"], dtype=np.float64)
DIFFERENCES = np.array(GOLDEN["inputs"]["length_differences"], dtype=np.float64)
PENALTY = GOLDEN["inputs"]["penalty"]
CLOSE = {"rtol": 0, "atol": 2e-5}


def test_difficulty_coefficients_and_rates() -> None:
    judged = np.isfinite(OUTCOMES)
    terms = np.stack([length_term(row, seen) for row, seen in zip(DIFFERENCES, judged, strict=True)])
    for policy in range(len(OUTCOMES)):
        others = [row for row in range(len(OUTCOMES)) if row != policy]
        gamma = prompt_difficulty(OUTCOMES[others], terms[others])
        np.testing.assert_allclose(gamma, GOLDEN["outputs"]["difficulty"][policy], **CLOSE)
        seen = judged[policy]
        features = np.stack([np.ones(seen.sum()), terms[policy, seen], gamma[seen]], axis=1)
        found = fit_logistic(features, OUTCOMES[policy, seen], np.ones((1, seen.sum())), PENALTY, np.zeros((1, 3)))
        np.testing.assert_allclose(found[0], GOLDEN["outputs"]["coefficients"][policy], **CLOSE)


def test_length_controlled_win_rates() -> None:
    found = length_controlled(OUTCOMES, DIFFERENCES, Strength([PENALTY], 5), Resampling(0.95, 200, 1))
    np.testing.assert_allclose([rate.estimate for rate in found if rate], GOLDEN["outputs"]["rates"], **CLOSE)
