"""Figures may stand side by side only if they were measured alike."""

from typing import Any

import pytest

from tasks.engine.errors import DataError
from tasks.results.safety_figure import SafetyFigure, check_comparable


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
