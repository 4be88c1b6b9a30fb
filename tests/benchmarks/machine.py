"""What one core can do, and what the work needs: together the bound that no exact fp32 design can pass.

Behind the last layer a state is only needed where somebody reads it, so that layer owes keys and values to the other tokens.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from tests.benchmarks.workload import SIZES, Work

PRODUCTS = ((1024, 512, 1408), (1024, 1408, 512), (2048, 512, 512), (1024, 192, 512))
"""Rows, inputs and outputs of the products that the peak is measured on."""
PASSES = {"generation": 1, "scoring": 2, "update": 6}
"""Trunk passes over every token of which the states before response tokens are read; a backward pass counts as two. The
update trains two networks, sampling says what the policy thought of its tokens, and scoring runs reference and value model
and, once, the reward model, of which one state a response is read."""
HEAD_PASSES = {"generation": 1, "scoring": 1, "update": 3}
"""Output-head passes over every response token."""


def best_seconds(run: Callable[[], object], repeats: int = 9) -> float:
    """Shortest of several CPU times, after two runs to warm up."""
    times = []
    for _ in range(repeats + 2):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times[2:])


def gemm_gflops(dtype: torch.dtype = torch.float32, packed: bool = False) -> float:
    """Best rate of a linear layer on one core, GFLOP/s; ``packed``: by oneDNN, with its weight laid out beforehand."""
    rates = []
    for rows, inputs, outputs in PRODUCTS:
        x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        run: Callable[[], object] = partial(torch.nn.functional.linear, x, weight)
        if packed:
            laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
            run = partial(torch.ops.mkldnn._linear_pointwise, x, laid_out, None, "none", [], "")
        rates.append(2e-9 * rows * inputs * outputs / best_seconds(run))
    return max(rates)


def fp32_gflops() -> dict[str, float]:
    """Best rate in fp32 of each library that multiplies without rounding its operands: the bound goes by the faster one."""
    rates = {"torch's own": gemm_gflops()}
    if torch.backends.mkldnn.is_available():
        rates["oneDNN, packed"] = gemm_gflops(packed=True)
    return rates


def read_gb_per_s(megabytes: int = 256) -> float:
    """Rate at which memory outside the second-level cache is read."""
    numbers = torch.ones(megabytes * 2**18)
    return megabytes * 2**20 / best_seconds(lambda: numbers.sum(), 5) / 1e9


def processor() -> str:
    """Vendor and model name of the processor, and whether it multiplies bf16 in hardware."""
    info = Path("/proc/cpuinfo")
    lines = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line] if info.is_file() else []
    facts = {name.strip(): value.strip() for name, value in reversed(lines)}
    flags = facts.get("flags", "").split()
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{facts.get('vendor_id', 'unknown')}, {facts.get('model name', 'unknown')}, {' '.join(units) or 'no AVX'}"


def necessary_gflops(work: Work, response_tokens: float, prompt_tokens: float) -> dict[str, float]:
    """Operations of one iteration without padding, with the output head on response tokens only, by phase.

    Args:
        work: sizes of the models.
        response_tokens: of all episodes together.
        prompt_tokens: of all episodes together.
    """
    size = SIZES[work.size]
    width, layers = size["hidden_size"], size["num_hidden_layers"]
    tokens, head = response_tokens + prompt_tokens, 2 * width * size["vocab_size"]
    keys_and_values = 4 * width * width
    # the rest of a layer: queries, output projection, MLP, two products with half of the earlier tokens on average
    rest = 4 * width * width + 6 * width * size["intermediate_size"] + 2 * width * tokens / work.batch

    def trunk(read: float) -> float:
        return tokens * layers * keys_and_values + (tokens * (layers - 1) + read) * rest

    needed = {
        phase: passes * trunk(response_tokens) + HEAD_PASSES[phase] * response_tokens * head
        for phase, passes in PASSES.items()
    }
    needed["scoring"] += trunk(work.batch)  # the reward model
    return {phase: 1e-9 * operations for phase, operations in needed.items()}


def growth_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log seconds over log size by least squares: 1 is proportional."""
    x, y = [math.log(value) for value in sizes], [math.log(value) for value in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
