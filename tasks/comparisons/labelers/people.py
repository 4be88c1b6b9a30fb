"""People as labelers: a batch on disk, which the labelling page shows, and the labels that are there so far."""

import math
from collections.abc import Sequence
from pathlib import Path

from tasks.comparisons.labelers.config import PeopleConfig
from tasks.comparisons.labelers.labeler import Labeler, Rankings, Unranked
from tasks.engine.errors import AwaitingLabels
from tasks.records import labels as batches
from tasks.records.records import Comparison


class People(Labeler):
    """Whoever answers on the labelling page.

    Args:
        config: the form, and how many labels are wanted.
        home: folder that holds the batches.
        batch_id: of the batch; the same items give the same id.
        shared_share: what the batch tells about its shared items.
    """

    def __init__(self, config: PeopleConfig, home: Path, batch_id: str, shared_share: float) -> None:
        self._config, self._home, self._shared = config, home, shared_share
        self.batch_id = batch_id

    def label(self, items: Sequence[Unranked]) -> Rankings:
        """Write the batch, or find it, and read its labels.

        Raises:
            AwaitingLabels: there are not enough yet.
        """
        batch = batches.write_batch(self._home, self._batch(), [_asked(item) for item in items])
        given = batches.read_labels(batch)
        progress = batches.progress(batch, given, {label.labeler for label in given})
        wanted = math.ceil(self._config.enough * progress.wanted)
        if progress.given < wanted:
            raise AwaitingLabels(
                f"{wanted - progress.given} of {wanted} labels are missing in batch {self.batch_id}; give them on the page of "
                f"`PLUMBLINE_HOME={self._home} python -m flows.label`; the same command then goes on",
                str(batch.folder),
                wanted,
            )
        found: dict[str, list[Comparison]] = {item.item_id: [] for item in items}
        for label, comparison in ranked(batch, given):
            found[label.item_id].append(comparison)
        return found

    def _batch(self) -> batches.Batch:
        flags = [batches.Flag(name=flag.name, text=flag.text) for flag in self._config.flags]
        return batches.Batch(
            id=self.batch_id,
            form=batches.Form(quality_levels=self._config.quality_levels, flags=flags),
            instructions=self._config.instructions,
            labels_per_item=self._config.labels_per_item,
            shared_share=self._shared,
        )


def ranked(batch: batches.LabelBatch, given: Sequence[batches.Label]) -> list[tuple[batches.Label, Comparison]]:
    """Labels that rank, each with its record, in the order of the items and then of the labelers."""
    return [(label, batches.comparisons_of(batch, [label])[0]) for label in given if label.skipped is None]


def _asked(item: Unranked) -> batches.Item:
    candidates = item.candidates
    return batches.Item(
        item_id=item.item_id,
        text=item.text,
        responses=candidates.completions,
        shared=item.shared,
        origin=batches.Origin(
            prompt=candidates.prompt,
            source_policy=[candidates.policy] * len(candidates.completions),
            finished=candidates.finished,
        ),
    )
