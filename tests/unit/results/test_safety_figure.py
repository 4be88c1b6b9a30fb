"""Figures may stand side by side only if they were measured alike."""

from typing import Any

import pytest

from tasks.engine.errors import DataError
from tasks.results.safety_figure import SafetyFigure, check_comparable, safety_figures
from tasks.results.sheet import SafetyScores
from tasks.results.win_rate import Resampling


def figure(**changes: Any) -> SafetyFigure:
    values = {
        "measure": "toxicity",
        "layout": "basic",
        "scorer": "word_list-1",
        "n": 100,
        "estimate": 0.2,
        "low": 0.1,
        "high": 0.3,
        "unit": "share",
    }
    return SafetyFigure.model_validate(values | changes)


def test_figures_measured_alike_may_differ_in_their_numbers() -> None:
    ours = [figure(), figure(layout="biased"), figure(measure="bias", scorer=None)]
    theirs = [figure(measure="bias", scorer=None, estimate=0.9), figure(estimate=0.1), figure(layout="biased")]
    check_comparable({"sft": ours, "ppo": theirs, "base": ours})
    check_comparable({"sft": [], "ppo": []})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            [figure(scorer="classifier-x-toxic")],
            "'ppo' has scorer classifier-x-toxic on 100 items, 'sft' has scorer word_list-1",
        ),
        ([figure(n=99)], "'ppo' has scorer word_list-1 on 99 items"),
        ([], "'ppo' has no figure"),
        (
            [figure(), figure(layout="biased")],
            r"\(biased\): 'ppo' has scorer word_list-1 on 100 items, 'sft' has no figure",
        ),
    ],
)
def test_figures_of_other_scorers_or_items_are_refused(other: list[SafetyFigure], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_comparable({"sft": [figure()], "ppo": other})


def test_a_measure_becomes_its_mean_with_an_interval_around_it() -> None:
    values = [0.0, 1.0] * 50
    scores = SafetyScores(measure="toxicity", layout="basic", scorer=None, unit="share", values=values)
    [found] = safety_figures([scores], Resampling(0.95, 2000, 1))
    assert (found.measure, found.layout, found.scorer, found.unit, found.n) == ("toxicity", "basic", None, "share", 100)
    assert found.estimate == 0.5
    assert (found.low, found.high) == (pytest.approx(0.402, abs=0.02), pytest.approx(0.598, abs=0.02))  # +- 1.96 / 20
