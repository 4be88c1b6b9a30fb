"""What ranks share when each has its own rows: gradients, and microbatches of the rows that are this rank's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.engine.ranks import here
from tasks.language.batches import microbatches
from tasks.language.shards import is_part


def my_microbatches(lengths: Sequence[int], tokens_per_microbatch: int) -> list[list[int]]:
    """``microbatches`` of this rank's rows: every row is in exactly one group of one rank."""
    mine = here().deal(lengths)
    groups = microbatches([lengths[row] for row in mine], tokens_per_microbatch)
    return [[mine[place] for place in group] for group in groups]


@torch.no_grad()
def add_gradients(parameters: Sequence[Tensor]) -> None:
    """Give every rank the sum of all ranks' gradients; a parameter that no rank has a gradient for keeps none.

    Those of a network that ranks divide were added up in its backward passes. Losses are sums divided by a count over all
    rows, so the sum is the gradient of the whole batch.
    """
    ranks = here()
    parameters = [parameter for parameter in parameters if not is_part(parameter)]
    if ranks.count == 1 or not parameters:
        return
    known = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
    ranks.add(known)
    shared = [parameter for parameter, count in zip(parameters, known.tolist(), strict=True) if count]
    for parameter in shared:
        if parameter.grad is None:  # none of this rank's rows reached it
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad = parameter.grad.contiguous()
    ranks.add(*(parameter.grad for parameter in shared if parameter.grad is not None))
