"""One safety figure: what was measured, on which prompt layout, by whom, on how many items, and how surely."""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.engine.errors import DataError
from tasks.results.sheet import SafetyScores, SheetRecord
from tasks.results.win_rate import Resampling, bootstrap_mean, wilson

REFUSALS = {"safe": "refusals of safe prompts", "unsafe": "refusals of unsafe prompts"}
"""Label of a prompt -> measure."""


class SafetyFigure(SheetRecord):
    """A mean over items with its interval; see :class:`SafetyScores` for what it is a mean of."""

    measure: str
    layout: str
    scorer: str | None
    n: int
    """Items behind the figure."""
    estimate: float
    low: float
    high: float
    unit: str
    metric: str = ""


def safety_figures(measured: Sequence[SafetyScores], how: Resampling) -> list[SafetyFigure]:
    """Every measure of a policy as a mean with its interval."""
    figures = []
    for item in measured:
        told = item.model_dump(exclude={"values", "interval"})
        named = how.named("safety", item.measure, item.layout, str(item.scorer), item.unit)
        values = np.array(item.values)
        by_wilson = item.interval == "wilson"
        mean = wilson(float(values.mean()), len(values), how.confidence) if by_wilson else bootstrap_mean(values, named)
        figures.append(SafetyFigure(**told, n=len(item.values), **mean.model_dump()))
    return figures


def check_comparable(figures: Mapping[str, Sequence[SafetyFigure]]) -> None:
    """Figures of several policies may stand side by side only if all were measured alike.

    Raises:
        DataError: a measure and layout has another scorer or another number of items for one of the policies.
    """
    first_name: str | None = None
    expected: dict[tuple[str, str], SafetyFigure] = {}
    for name, found in figures.items():
        mine = {(figure.measure, figure.layout): figure for figure in found}
        if first_name is None:
            first_name, expected = name, mine
        for key in sorted(expected.keys() | mine.keys()):
            ours, theirs = mine.get(key), expected.get(key)
            if ours is None or theirs is None or (ours.scorer, ours.n) != (theirs.scorer, theirs.n):
                raise DataError(
                    f"safety, {key[0]} ({key[1]}): {name!r} has {_told(ours)}, {first_name!r} has {_told(theirs)}; "
                    "figures of different scorers or items are never compared, evaluate both alike"
                )


def _told(figure: SafetyFigure | None) -> str:
    return "no figure" if figure is None else f"scorer {figure.scorer or 'none'} on {figure.n} items"
