"""What this machine does in a second: guessed for a model from a matrix product, or measured with it (``measuring``)."""

import platform
import time
from collections.abc import Callable
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from tasks.engine.config import RuntimeConfig

MATRIX = 1024
REACHED = 0.4
"""Share of a data sheet's operations that training and reading are taken to reach; ours, PaLM and Llama report 0.38 to 0.46."""
MOVED = 0.5
"""Share of a data sheet's memory rate that sampling and optimizer steps are taken to reach; ours."""


class Rates(BaseModel):
    """Seconds of work on this machine."""

    model_config = ConfigDict(frozen=True)

    machine: str
    measured: str
    """When."""
    gflops: float
    """Of one large matrix product, in the run's precision."""
    parameters: int
    """Of the model that was measured; less than the run's where layers were taken off."""
    tokens: int
    """Of the batch that was read."""
    read: float
    """Seconds a token, forward only."""
    train: float
    """Seconds a token, forward and backward."""
    rows: int
    """Sampled side by side."""
    sample: float
    """Seconds a token, all rows of the batch together taken apart evenly."""
    adapted_train: float
    """As ``train``, where an adapter is trained; as ``train`` where the run has none."""
    adapted_sample: float
    """As ``sample``, with that adapter beside the weights."""
    update: float
    """Seconds a parameter of one optimizer step."""

    def scaled(self, parameters: int) -> "Rates":
        """For a model of another size: work follows the parameters."""
        by = parameters / self.parameters
        tokens = ("read", "train", "sample", "adapted_train", "adapted_sample")
        return self.model_copy(update={name: getattr(self, name) * by for name in tokens})


class Trial(NamedTuple):
    """Of what shape the measured batch is."""

    prompt: int
    response: int
    rows: int


def guessed(parameters: int, runtime: RuntimeConfig) -> Rates:
    """From a matrix product alone, in a tenth of a second: this share of its rate is what models reach on a processor."""
    gflops = matrix_rate(runtime)
    token = 2 * parameters / gflops / 1e9
    return Rates(
        machine=platform.node(),
        measured="",
        gflops=gflops,
        parameters=parameters,
        tokens=0,
        read=token / 0.7,
        train=3 * token / 0.65,
        rows=0,
        sample=token / 0.3,
        adapted_train=3 * token / 0.75,
        adapted_sample=token / 0.25,
        update=update_rate(runtime),
    )


def declared(parameters: int, runtime: RuntimeConfig, rows: int, tflops: float, gb_s: float) -> Rates:
    """Of a card that is not here, from its data sheet.

    A forward pass takes two operations a parameter and token, a backward pass twice as many, and layers that are computed again
    one more forward pass. A sampled token reads every weight once for all rows, and an optimizer step moves seven numbers a
    parameter (AdamW reads weight, gradient and two moments, and writes three of them).

    Args:
        rows: sampled side by side.
        tflops: for products, of the data sheet.
        gb_s: of its memory, of the data sheet.
    """
    operations, moved = REACHED * tflops * 1e12, MOVED * gb_s * 1e9
    forward, weight = 2 * parameters / operations, 2 if runtime.precision == "bf16" else 4
    train, sample = (3 + runtime.gradient_checkpointing) * forward, max(forward, weight * parameters / moved / rows)
    return Rates(
        machine=f"a card of {tflops:g} TFLOP/s and {gb_s:g} GB/s",
        measured="",
        gflops=1e3 * tflops,
        parameters=parameters,
        tokens=0,
        read=forward,
        train=train,
        rows=rows,
        sample=sample,
        adapted_train=train - forward,  # no gradients of weights
        adapted_sample=sample,
        update=7 * 4 / moved,
    )


def matrix_rate(runtime: RuntimeConfig) -> float:
    """GFLOP a second of one large product."""
    import torch

    kind = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    left = torch.ones(MATRIX, MATRIX, dtype=kind, device=runtime.device)
    return 2 * MATRIX**3 / best_seconds(lambda: left @ left, runtime) / 1e9


def update_rate(runtime: RuntimeConfig) -> float:
    """Seconds a parameter of one optimizer step."""
    import torch

    weight = torch.nn.Parameter(torch.ones(4_000_000, device=runtime.device))
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight], lr=1e-6, fused=True)
    return best_seconds(optimizer.step, runtime) / weight.numel()


def best_seconds(work: Callable[[], object], runtime: RuntimeConfig) -> float:
    """Seconds of the fastest of a few times."""
    return min(seconds_of(work, runtime) for _ in range(4))


def seconds_of(work: Callable[[], object], runtime: RuntimeConfig) -> float:
    """Of one thread of a processor, the time that it worked: what other programs take from it does not count."""
    clock = time.process_time if runtime.device == "cpu" and runtime.threads == 1 else time.perf_counter
    started = clock()
    work()
    if runtime.device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(runtime.device)
    return clock() - started
