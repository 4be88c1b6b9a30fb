"""Decoding and PPO on one GPU: ``make bench-gpu``. bf16, batches that fill the card, against transformers, TRL and the
roofline.

Without a GPU it runs a miniature of the same on the CPU and says so: that shows that the command works, not how fast it is.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import bench, our_side, workload
from tests.benchmarks.workload import EOS, LONGEST_PROMPT, PAD, SHORTEST_PROMPT, Work
from tests.unit.sampling import generate

ROOT = Path(__file__).parents[2]
NEVER_DRAWN = -1


@dataclass(frozen=True)
class Plan:
    """What is measured on one kind of device."""

    device: str
    size: str
    decode_batches: tuple[int, ...]
    new_tokens: int
    ppo: Work
    bandwidth_megabytes: int


GPU = Plan("cuda", "124M", (64, 256, 512), 200, Work("124M", "fixed", 512, 64, 200, "bf16", 2, device="cuda"), 2048)
CPU = Plan("cpu", "3M", (4,), 4, Work("3M", "fixed", 4, 2, 4, "bf16", 1), 8)


def seconds(run: Callable[[], object], device: str, repeats: int = 3) -> float:
    """Shortest wall time of several, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def bandwidth(plan: Plan) -> float:
    """Bytes per second that a sum reads."""
    numbers = torch.ones(plan.bandwidth_megabytes * 2**18, device=plan.device)
    return numbers.numel() * 4 / seconds(numbers.sum, plan.device)


def bytes_per_step(size: str, batch: int, tokens_before: float) -> float:
    """What one decoding step must read in bf16: every weight once, and the keys and values of all earlier tokens."""
    config = workload.SIZES[size]
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    weights = layers * (4 * width * width + 3 * width * config["intermediate_size"]) + width * config["vocab_size"]
    return 2.0 * (weights + 2 * layers * width * batch * tokens_before)


def decoding(plan: Plan, bytes_per_second: float) -> list[dict[str, Any]]:
    """New tokens per second of our sampler and of transformers, and their share of the roofline."""
    policy = workload.build_models(Work(plan.size, "fixed"))[0].to(plan.device).eval()
    rows = []
    for batch in plan.decode_batches:
        prompts = workload.prompts(Work(plan.size, batch=batch, iterations=1))[:batch]

        def ours(prompts: list[list[int]] = prompts, batch: int = batch) -> None:
            with torch.autocast(plan.device, dtype=torch.bfloat16):
                generate(
                    policy,
                    prompts,
                    max_new_tokens=plan.new_tokens,
                    temperature=1.0,
                    generator=torch.Generator().manual_seed(0),
                    eos_id=NEVER_DRAWN,
                    pad_id=PAD,
                    batch_size=batch,
                )

        width = max(map(len, prompts))
        ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts], device=plan.device)
        mask = (torch.arange(width) >= torch.tensor([width - len(p) for p in prompts])[:, None]).long().to(plan.device)

        def theirs(cache: str, ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> None:
            with torch.autocast(plan.device, dtype=torch.bfloat16), torch.no_grad():
                policy.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=True,
                    top_k=0,
                    min_new_tokens=plan.new_tokens,
                    max_new_tokens=plan.new_tokens,
                    pad_token_id=PAD,
                    eos_token_id=EOS,
                    cache_implementation=cache,
                )

        tokens = batch * plan.new_tokens
        middle = (SHORTEST_PROMPT + LONGEST_PROMPT + plan.new_tokens) / 2
        roofline = batch * bytes_per_second / bytes_per_step(plan.size, batch, middle)
        row: dict[str, Any] = {"batch": batch, "roofline": roofline, "ours": tokens / seconds(ours, plan.device)}
        # a static cache makes transformers compile the step, on a GPU with CUDA graphs
        for cache in ("dynamic", "static") if plan.device == "cuda" else ("dynamic",):
            row[f"transformers, {cache} cache"] = tokens / seconds(lambda cache=cache: theirs(cache), plan.device)
        rows.append(row | {"fraction_of_roofline": row["ours"] / roofline})
    return rows


def ppo(plan: Plan, trl: Path | None) -> dict[str, float]:
    """Episodes per second of whole PPO iterations, and those of TRL, whose environment is ``trl``."""
    learner = our_side.learner(plan.ppo)
    learner.step()
    _wait(plan.device)
    started = time.perf_counter()
    for _ in range(plan.ppo.iterations):
        learner.step()
    _wait(plan.device)
    spent = time.perf_counter() - started
    found = {"episodes_per_second": plan.ppo.batch * plan.ppo.iterations / spent}
    if trl is not None:
        del learner
        if plan.device == "cuda":
            torch.cuda.empty_cache()  # for the other process
        found["trl_episodes_per_second"] = plan.ppo.batch / bench.run(trl, "trl_side", plan.ppo)["seconds"]["wall"]
        found["ratio"] = found["episodes_per_second"] / found["trl_episodes_per_second"]
    return found


def measure(plan: Plan, trl: Path | None) -> dict[str, Any]:
    """Everything, with the name of the device; without TRL where there is no environment for it."""
    label = torch.cuda.get_device_name() if plan.device == "cuda" else "CPU MINIATURE: no GPU was found"
    rate = bandwidth(plan)
    return {
        "device": label,
        "size": plan.size,
        "bandwidth_gb_per_s": rate / 1e9,
        "decoding": decoding(plan, rate),
        "ppo": ppo(plan, trl),
    }


def report(results: dict[str, Any]) -> str:
    """The tables."""
    lines = [f"{results['device']}; {results['size']} parameters; memory {results['bandwidth_gb_per_s']:.0f} GB/s"]
    for row in results["decoding"]:
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in row.items() if name.startswith(("ours", "transf")))
        lines.append(
            f"decoding, batch {row['batch']}: tokens/s {rates}; ours is {row['fraction_of_roofline']:.0%} of the roofline"
        )
    line = f"PPO: {results['ppo']['episodes_per_second']:.1f} episodes/s"
    if "ratio" in results["ppo"]:
        line += f", TRL {results['ppo']['trl_episodes_per_second']:.1f} (autocast bf16), ratio {results['ppo']['ratio']:.2f}"
    lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / ".plumbline" / "bench-gpu.json")
    parser.add_argument("--environment", type=Path, default=ROOT / ".plumbline" / "trl", help="where TRL is installed")
    parser.add_argument("--size", choices=list(workload.SIZES), help="another model than the plan's")
    asked = parser.parse_args()
    plan = GPU if torch.cuda.is_available() else CPU
    if asked.size:
        plan = replace(plan, size=asked.size, ppo=replace(plan.ppo, size=asked.size))
    try:
        trl = bench.trl_python(asked.environment)
    except subprocess.CalledProcessError as error:  # a GPU machine often has no network
        print(f"without TRL, which could not be installed: {error}")
        trl = None
    results = measure(plan, trl)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(results, indent=1) + "\n")
    print(report(results))


if __name__ == "__main__":
    main()
