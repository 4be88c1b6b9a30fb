"""The embedded world's panels as labeler: one of the training panel per prompt, as in InstructGPT."""

from collections.abc import Sequence

from tasks.comparisons.label import label
from tasks.comparisons.labelers.labeler import Labeler, Rankings, Unranked
from tasks.language.seeds import derived_seed
from tasks.records.records import Comparison
from tasks.sandbox.labelers import Panel


class SimulatedLabelers(Labeler):
    """The training panel of the embedded world.

    Args:
        panel: who ranks.
        seed: of who ranks what, and of the noise; each set has its own.
    """

    def __init__(self, panel: Panel, seed: int) -> None:
        self._panel, self._seed = panel, seed

    def label(self, items: Sequence[Unranked]) -> Rankings:
        """Everyone ranks equally many prompts of a set."""
        found: dict[str, list[Comparison]] = {}
        for split in ("train", "valid"):
            mine = [item for item in items if item.split == split]
            seed = derived_seed(self._seed, f"labels/{split}")
            ranked = label([item.candidates for item in mine], self._panel.training, seed)
            found |= {item.item_id: [comparison] for item, comparison in zip(mine, ranked, strict=True)}
        return found
