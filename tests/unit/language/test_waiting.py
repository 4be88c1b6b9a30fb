"""What makes a program wait for an accelerator: reading a number of a tensor that lies there. Seen without one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from tasks.language import generation
from tasks.language.batches import pad_batch
from tasks.language.families import hidden_states, trunk_of
from tasks.language.generation import sample
from tasks.language.logprobs import response_logprobs
from tests.unit.families import build
from tests.unit.tiny import gpt2, llama

ATEN = torch.ops.aten
WAITS = (ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.is_nonzero.default, ATEN.masked_select.default)
NEW = 40


class Waits(TorchDispatchMode):  # type: ignore[misc]
    """Counts operators whose result has to be known before the program goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in WAITS
        return func(*args, **(kwargs or {}))


def sampled(model: PreTrainedModel) -> tuple[list[list[int]], int]:
    draws = torch.Generator().manual_seed(0)
    with Waits() as waits:
        found = sample(
            model,
            [[3, 4], [5, 6, 7]] * 4,
            max_new_tokens=NEW,
            temperature=1.0,
            generator=draws,
            eos_id=2,
            pad_id=0,
            batch_size=8,
            with_statistics=True,
        )
    return found.responses, waits.count


@pytest.mark.parametrize("make", [lambda: llama(max_position_embeddings=64), lambda: gpt2(n_positions=64)])
def test_an_accelerator_is_not_waited_for_at_every_token(
    make: Callable[[], PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    responses, each = sampled(model)
    monkeypatch.setitem(generation.LOOK_EVERY, "cpu", 16)
    same, few = sampled(model)
    assert same == responses and len({len(response) for response in responses}) > 2
    assert each >= NEW - 1 and few <= 12


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_reading_waits_for_nothing(family: str) -> None:
    """A tensor on the meta device has no numbers: whoever asks for one fails."""
    model = build(family).to("meta")
    batch = pad_batch([[3, 4, 5], [6]], [[7, 8], [3, 4, 5]], 0).to("meta")
    found = response_logprobs(model, batch, 0.7, with_entropy=True)
    assert [table.shape for table in found] == [(2, 3), (2, 3)] and found.logprobs.is_meta
    last = hidden_states(trunk_of(model), batch, batch.lengths, torch.arange(2), batch.lengths - 1)  # as scores ask
    assert last.shape[0] == 2 and last.is_meta
    with pytest.raises(RuntimeError, match=r"meta|Meta"):
        int(found.logprobs.sum())
