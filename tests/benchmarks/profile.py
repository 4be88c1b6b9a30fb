"""Where the CPU seconds of one PPO iteration go, by phase and by operator, and what its products reach when run alone.

    LD_PRELOAD=libtcmalloc_minimal.so.4 OMP_NUM_THREADS=1 taskset -c 0 python -m tests.benchmarks.profile [--precision bf16] ...

Arguments are those of ``workload.Work``. Every operator below autograd is timed by its thread's CPU clock, which a core that is
busy otherwise does not stretch, as it does the wall clock of torch's own profiler. The same iteration is run once without that,
for the phases; what operators leave of it is Python, dispatch and autograd.
"""

import copy
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tasks.language import generation
from tasks.language.decoding import PackedReader
from tasks.language.descent import Descent
from tasks.language.models import ScalarModel
from tasks.language.optimization import Ema
from tasks.ppo import rollout, update
from tests.benchmarks import machine, our_side, workload
from tests.benchmarks.workload import Work

PHASES: tuple[tuple[Any, str, str], ...] = (
    (generation._Decoding, "run", "drawing tokens"),
    (PackedReader, "read_prompts", "sampling: prompts"),
    (PackedReader, "read", "sampling: decoding"),
    (generation, "logits_of", "sampling: head"),
    (PackedReader, "keep", "sampling: rows taken out"),
    (rollout, "response_logprobs", "scoring: log-probabilities"),
    (ScalarModel, "scores", "scoring: reward model"),
    (ScalarModel, "values", "scoring: values"),
    (update, "response_logprobs", "policy forward"),
    (Tensor, "backward", "backward"),
    (Descent, "step", "optimizer"),
    (Ema, "update", "averaged weights"),
)
"""Functions whose time is told apart; one inside another is taken out of it."""
TRAINING = {"scoring: values": "value forward"}
"""What a phase is with gradients."""
PRODUCTS = ("mm", "addmm")
KINDS = {
    "attention": "scaled_dot_product bmm baddbmm softmax index_select",
    "rounding and back": "to_copy",
    "optimizer, clipping, average": "fused_adamw foreach",
    "log-softmax, draws": "log_softmax cumsum searchsorted",
    "views": "view unsafe_view transpose t. slice squeeze unsqueeze expand split select detach alias",
}
"""Operators by the beginning of their names; all others go element by element, or copy."""
COLD = 2**25
"""Bytes of the operands that take turns when a product runs alone, so that none waits in a core's own cache."""


class Operator(NamedTuple):
    """Where it ran, its name, and shape, strides and type of each tensor that it read."""

    phase: str
    name: str
    tensors: tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype], ...]

    @property
    def kind(self) -> str:
        """Of ``KINDS``, or a product: with weights, or in a backward pass with activations, or of some rows at a time."""
        if self.name.split(".")[0] in PRODUCTS:
            if self.phase in ("sampling: decoding", "sampling: head"):
                return "products, decoding"
            turned = self.tensors[-2][1][0] == 1
            return "products, weights' gradients" if turned and self.phase == "backward" else "products"
        found = (kind for kind, names in KINDS.items() if self.name.lstrip("_").startswith(tuple(names.split())))
        kind = next(found, "elementwise, copies")
        return f"{kind}, decoding" if kind == "attention" and self.phase == "sampling: decoding" else kind


class Clock(TorchDispatchMode):
    """CPU seconds of every operator inside, with how often it ran and how many bytes it read and wrote."""

    def __init__(self, phase: list[str]) -> None:
        super().__init__()
        self._phase = phase
        self.found: dict[Operator, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.thread_time_ns()
        result = func(*args, **(kwargs or {}))
        seconds = 1e-9 * (time.thread_time_ns() - started)
        read = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        made = [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        shapes = tuple((tuple(part.shape), part.stride(), part.dtype) for part in read)
        entry = self.found[Operator(self._phase[-1], func._schema.name.removeprefix("aten::") + ".", shapes)]
        for place, amount in enumerate((seconds, 1, sum(part.nbytes for part in (*read, *made)))):
            entry[place] += amount
        return result


@contextmanager
def phases(current: list[str], spent: dict[str, float]) -> Iterator[None]:
    """Inside, ``current`` ends with the phase under way, and ``spent`` gets CPU seconds by phase."""
    since = [time.process_time()]

    def switch() -> None:
        now = time.process_time()
        spent[current[-1]] += now - since[0]
        since[0] = now

    def told_apart(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            switch()
            current.append(TRAINING.get(name, name) if torch.is_grad_enabled() else name)
            try:
                return function(*args, **kwargs)
            finally:
                switch()
                current.pop()

        return run

    with ExitStack() as patched:
        for owner, name, phase in PHASES:
            patched.enter_context(mock.patch.object(owner, name, told_apart(getattr(owner, name), phase)))
        try:
            yield
        finally:
            switch()


def alone(operator: Operator, repeats: int = 3) -> float:
    """Seconds of a product of these operands' shapes, strides and types, from memory."""

    def made(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        return torch.randn(size).to(dtype).as_strided(shape, strides)

    first = [made(*part) for part in operator.tensors[-2:]]
    count = max(2, COLD // sum(part.nbytes for part in first))
    pairs = [first, *([made(*part) for part in operator.tensors[-2:]] for _ in range(count - 1))]
    return machine.best_seconds(lambda: [a @ b for a, b in pairs], repeats) / count


def gflop(operator: Operator) -> float:
    """Of one call of a product."""
    (rows, inner), (_, outputs) = (part[0] for part in operator.tensors[-2:])
    return 2e-9 * rows * inner * outputs


def measure(work: Work) -> dict[str, Any]:
    """The second iteration, twice: untouched for the phases, and with every operator timed."""
    trained = our_side.learner(work)
    trained.step()
    before = copy.deepcopy(trained.state_dict())
    current, spent = ["rest"], defaultdict[str, float](float)
    with phases(current, spent):
        trained.step()
    trained.load_state_dict(before)
    clock = Clock(current)
    with phases(current, defaultdict(float)), clock:
        trained.step()
    kinds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for operator, (seconds, calls, moved) in clock.found.items():
        row = kinds[operator.kind]
        row["seconds"] += seconds
        row["calls"] += calls
        row["gigabytes"] += moved / 1e9
        if operator.kind.startswith("products") and seconds > 1e-3:
            row["gflop"] += calls * gflop(operator)
            row["timed"] += seconds
            row["alone"] += calls * alone(operator)
    assert trained.last_rollout is not None
    return {
        "phases": dict(spent),
        "kinds": {kind: dict(row) for kind, row in kinds.items()},
        "response_tokens": int(trained.last_rollout.lengths.sum()),
        "new_shape": new_shape(torch.bfloat16 if work.precision == "bf16" else torch.float32),
    }


def new_shape(dtype: torch.dtype) -> tuple[float, float]:
    """Seconds of a product with a number of tokens that was not seen before, and of the same product again."""
    states, weight = torch.randn(1531, 512).to(dtype), torch.randn(1408, 512).to(dtype)
    times = []
    for _ in range(6):
        started = time.process_time()
        torch.nn.functional.linear(states, weight)
        times.append(time.process_time() - started)
    return times[0], min(times[1:])


def report(found: dict[str, Any], facts: str) -> str:
    """The tables."""
    total = sum(found["phases"].values())
    lines = [f"{facts}; {total:.2f} CPU s, {found['response_tokens']} response tokens", ""]
    lines += [
        f"{name:<30}{s:>8.2f} s{s / total:>7.1%}" for name, s in sorted(found["phases"].items(), key=lambda x: -x[1])
    ]
    lines += ["", f"{'operators':<30}{'calls':>8}{'s':>8}{'share':>8}{'GFLOP/s':>9}{'alone':>7}{'GB/s':>7}"]
    for kind, row in sorted(found["kinds"].items(), key=lambda x: -x[1]["seconds"]):
        line = f"{kind:<30}{row['calls']:>8.0f}{row['seconds']:>8.2f}{row['seconds'] / total:>8.1%}"
        if "gflop" in row:
            line += f"{row['gflop'] / row['timed']:>9.0f}{row['gflop'] / row['alone']:>7.0f}"
        elif kind != "views":
            line += f"{row['gigabytes'] / row['seconds']:>23.1f}"
        lines.append(line)
    left = total - sum(row["seconds"] for row in found["kinds"].values())
    lines.append(f"{'Python, dispatch, autograd':<38}{left:>8.2f}{left / total:>8.1%}")
    first, again = found["new_shape"]
    lines += ["", f"a product with a new number of tokens: {1e3 * first:.1f} ms, again {1e3 * again:.1f} ms"]
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = workload.parse(sys.argv[1:])
    print(
        report(
            measure(asked),
            f"{machine.processor()}; memory {machine.read_gb_per_s():.1f} GB/s; {asked.size} {asked.precision}",
        )
    )
