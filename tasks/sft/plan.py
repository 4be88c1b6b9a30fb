"""Which demonstrations and how many pretraining rows go into each optimizer step, decided before training
begins."""

from typing import NamedTuple

from tasks.language.seeds import named_random


class PlannedBatch(NamedTuple):
    """One optimizer step of fine-tuning."""

    epoch: int
    """Counted from 1."""
    demonstrations: list[int]
    """Indices into the demonstrations."""
    pretraining_rows: int
    """How many pretraining rows share the batch."""
    closes_epoch: bool


def plan_batches(
    demonstrations: int, *, epochs: int, batch_size: int, pretraining_fraction: float, seed: int
) -> list[PlannedBatch]:
    """Deal the demonstrations out over batches, each epoch in a fresh order.

    Every slot of a batch holds a pretraining row with probability ``pretraining_fraction``, else the next
    demonstration. An epoch ends with its last demonstration, so its last batch may be short, and a fraction makes
    epochs longer. Without a fraction there are ``epochs * ceil(demonstrations / batch_size)`` steps.

    Source: InstructGPT appendix C.3 says "10 % pretraining data"; that it means sequences, slot by slot, is our
    reading.
    """
    draws = named_random(seed, "sft/order")
    plan = []
    for epoch in range(1, epochs + 1):
        order = list(range(demonstrations))
        draws.shuffle(order)
        taken = 0
        while taken < demonstrations:
            batch: list[int] = []
            rows = 0
            while len(batch) + rows < batch_size and taken < demonstrations:
                if pretraining_fraction and draws.random() < pretraining_fraction:
                    rows += 1
                else:
                    batch.append(order[taken])
                    taken += 1
            plan.append(PlannedBatch(epoch, batch, rows, closes_epoch=taken == demonstrations))
    return plan
