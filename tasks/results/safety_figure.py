"""One safety figure: what was measured, on which prompt layout, by whom, on how many items, and how surely."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from tasks.engine.errors import DataError


class SafetyFigure(BaseModel):
    """A mean over items with its bootstrap interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    """What was measured: toxicity, bias entropy (Winogender), truthful (MC1), ..."""
    layout: str
    """How the prompt was laid out, exactly."""
    scorer: str | None
    """Who scored the text; None when the model's own probabilities are the measure."""
    n: int
    """Items behind the figure."""
    estimate: float
    low: float
    high: float
    unit: str
    """share, bits, or probability."""


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
