"""Plumbline's PPO beside TRL's on the same work: ``make bench``. One core, one thread, runs alternated, medians.

Prints tables and writes everything to a JSON file. TRL is installed into an environment of its own, at the first run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import machine, rows
from tests.benchmarks.workload import LONGEST_PROMPT, SHORTEST_PROMPT, Work

ROOT = Path(__file__).parents[2]
TRL = ("trl==1.12.0", "accelerate==1.15.0")
"""The last release of TRL that trains with PPO, and what it needs beside torch, transformers and datasets."""
FIXED = 48
PHASES = ("generation", "scoring", "update", "total")
HEADLINE_BATCH = 32
"""Episodes of an iteration where ten minutes must do."""
GROWTH: dict[str, dict[str, tuple[Any, ...]]] = {
    "full": {"batch": (16, 64, 256), "response": (32, 64, 128, 256), "size": ("3M", "9M", "30M")},
    "headline": {"batch": (16, 64), "response": (32, 128), "size": ("3M", "9M")},
}
"""Values along each axis of growth."""
PARAMETERS = {"3M": 3.05e6, "9M": 8.9e6, "30M": 29.9e6}
Result = dict[str, Any]


def trl_python(folder: Path) -> Path:
    """An environment that sees this one's packages and has TRL besides; made when it is not there."""
    python = folder / "bin" / "python"
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    if not (site / "trl").is_dir():
        venv.create(folder, with_pip=False)
        (site / "outer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), *TRL]
        subprocess.run(command, check=True)
    return python


def run(python: Path | str, side: str, work: Work) -> Result:
    """One measurement in a process of its own; without a GPU on the first core this process may use."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if work.device == "cpu" else []
    command = [*pinned, str(python), "-m", f"tests.benchmarks.{side}", *work.arguments()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    result: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def alternated(trl: Path, works: list[tuple[str, Work]], rounds: int) -> list[list[Result]]:
    """Every side once per round, so that a change in the machine's load meets all of them."""
    found: list[list[Result]] = [[] for _ in works]
    for _ in range(rounds):
        for place, (side, work) in enumerate(works):
            found[place].append(run(trl if side == "trl_side" else sys.executable, side, work))
            print(".", end="", file=sys.stderr, flush=True)
    return found


def median(results: list[Result], phase: str) -> float:
    """Median over rounds of the median seconds of an iteration."""
    return statistics.median(result["seconds"][phase] for result in results)


def ratio(trl: list[Result], ours: list[Result], phase: str) -> tuple[float, float, float]:
    """TRL's seconds over ours: of the medians, and the lowest and highest of the rounds."""
    each = [a["seconds"][phase] / b["seconds"][phase] for a, b in zip(trl, ours, strict=True)]
    return median(trl, phase) / median(ours, phase), min(each), max(each)


def headline(
    trl: Path, size: str, lengths: str, rounds: int, iterations: int, peak_gflops: float, batch: int = 64
) -> Result:
    """One row of the first table: TRL, ours, ours as it comes, TRL with oneDNN, ours in bf16.

    TRL takes old log-probabilities from sampling, so on equal work we do too; our default recomputes them.
    """
    response = FIXED if lengths == "fixed" else 64
    work = Work(size, lengths, batch=batch, response=response, iterations=iterations)
    sides = [
        ("trl_side", work),
        ("our_side", work),
        ("our_side", replace(work, old_logprobs="recomputed")),
        ("trl_side", replace(work, precision="onednn")),
        ("our_side", replace(work, precision="bf16")),
    ]
    names = ("trl", "plumbline", "plumbline recomputed", "trl onednn", "plumbline bf16")
    return headline_row(work, dict(zip(names, alternated(trl, sides, rounds), strict=True)), peak_gflops)


def headline_row(work: Work, runs: dict[str, list[Result]], peak_gflops: float) -> Result:
    """What the runs say."""
    stock, ours, recomputed, onednn, bf16 = runs.values()
    tokens = median(ours, "response_tokens")
    needed = machine.necessary_gflops(work, tokens, work.batch * (SHORTEST_PROMPT + LONGEST_PROMPT) / 2)
    bound = sum(needed.values()) / peak_gflops
    peaks = [statistics.median(run["peak_mb_above_start"] for run in side) for side in (ours, stock)]
    return {
        "size": work.size,
        "lengths": work.lengths,
        "trl_seconds": {phase: median(stock, phase) for phase in PHASES},
        "our_seconds": {phase: median(ours, phase) for phase in PHASES},
        "ratio": {phase: ratio(stock, ours, phase) for phase in PHASES},
        "ratio_wall": ratio(stock, ours, "wall"),
        "ratio_per_token": ratio(stock, ours, "total")[0] * tokens / median(stock, "response_tokens"),
        "ratio_recomputed": ratio(stock, recomputed, "total"),
        "ratio_to_onednn": ratio(onednn, ours, "total"),
        "ratio_bf16": ratio(stock, bf16, "total"),
        "bound_seconds": bound,
        "ceiling": median(stock, "total") / bound,
        "fraction_of_bound": bound / median(ours, "total"),
        "memory_ratio": peaks[0] / peaks[1],
        "runs": runs,
    }


def growth(trl: Path, works: list[Work], axis: list[float]) -> Result:
    """Seconds of both sides along one axis, and their exponents."""
    pairs = [alternated(trl, [("trl_side", work), ("our_side", work)], 1) for work in works]
    theirs, ours = ([median(pair[side], "total") for pair in pairs] for side in (0, 1))
    return {
        "axis": axis,
        "trl_seconds": theirs,
        "our_seconds": ours,
        "ratio": [a / b for a, b in zip(theirs, ours, strict=True)],
        "trl_exponent": machine.growth_exponent(axis, theirs),
        "our_exponent": machine.growth_exponent(axis, ours),
    }


def growths(trl: Path, axes: dict[str, tuple[Any, ...]]) -> Result:
    """``growth`` along every axis, with the smallest model otherwise."""
    small = Work("3M", "fixed", batch=axes["batch"][-2], response=FIXED, iterations=1)
    along = {
        name: [replace(small, **{field: value}) for value in axes[field]]
        for name, field in (("episodes", "batch"), ("response tokens", "response"), ("parameters", "size"))
    }
    return {
        name: growth(trl, works, [float(PARAMETERS.get(value, value)) for value in axes[field]])
        for (name, works), field in zip(along.items(), ("batch", "response", "size"), strict=True)
    }


def pretraining_cost(size: str, rounds: int, iterations: int) -> Result:
    """A PPO-ptx iteration against a plain one: what it costs beyond the operations of its extra tokens."""
    from tests.benchmarks.our_side import PTX_ROW_TOKENS

    plain = Work(size, "fixed", response=FIXED, iterations=iterations)
    without, with_ptx = alternated(
        Path(sys.executable), [("our_side", plain), ("our_side", replace(plain, gamma=1.0))], rounds
    )
    length = FIXED + (SHORTEST_PROMPT + LONGEST_PROMPT) / 2
    # the update trains two networks on all tokens; pretraining rows train one of them
    tokens_share = plain.batch * PTX_ROW_TOKENS / (2 * plain.batch * length)
    extra = median(with_ptx, "total") - median(without, "total")
    tokens_cost = tokens_share * median(without, "update")
    return {
        "plain_seconds": median(without, "total"),
        "ptx_seconds": median(with_ptx, "total"),
        "overhead_beyond_tokens": (extra - tokens_cost) / median(without, "total"),
    }


def report(results: Result) -> str:
    """The tables."""
    lines = [
        f"processor: {results['processor']}",
        f"one core: {results['gemm_gflops']:.0f} GFLOP/s fp32 ({results['gemm_of']}), {results['bf16_gflops']:.0f} bf16; "
        f"memory {results['read_gb_per_s']:.1f} GB/s; torch {results['torch']}; CPU seconds of one thread",
        "",
        f"{'work':<14}{'TRL s':>8}{'ours s':>8}{'ratio':>7} {'(rounds)':<13}{'/token':>7}{'gen':>6}{'score':>7}{'update':>7}"
        f"{'wall':>6}{'recomputed':>12}{'onednn':>8}{'bf16':>6}{'ceiling':>9}{'bound':>7}{'memory':>8}",
    ]
    for row in results["headline"]:
        total, low, high = row["ratio"]["total"]
        phases = [row["ratio"][phase][0] for phase in PHASES[:3]]
        lines.append(
            f"{row['size'] + ' ' + row['lengths']:<14}{row['trl_seconds']['total']:>8.2f}"
            f"{row['our_seconds']['total']:>8.2f}{total:>7.2f} {f'({low:.2f}-{high:.2f})':<13}"
            f"{row['ratio_per_token']:>7.2f}{phases[0]:>6.2f}"
            f"{phases[1]:>7.2f}{phases[2]:>7.2f}{row['ratio_wall'][0]:>6.2f}{row['ratio_recomputed'][0]:>12.2f}"
            f"{row['ratio_to_onednn'][0]:>8.2f}"
            f"{row['ratio_bf16'][0]:>6.2f}{row['ceiling']:>9.2f}{row['fraction_of_bound']:>7.0%}{row['memory_ratio']:>8.2f}"
        )
    for name, row in results["growth"].items():
        lines += ["", f"{name}: seconds grow with exponent {row['our_exponent']:.2f} (TRL {row['trl_exponent']:.2f})"]
        lines += [
            f"  {at:>12g}: TRL {a:.2f}, ours {b:.2f}, ratio {a / b:.2f}"
            for at, a, b in zip(row["axis"], row["trl_seconds"], row["our_seconds"], strict=True)
        ]
    if results["rows"] is not None:
        lines += ["", rows.report(results["rows"])]
    ptx = results["ptx"]
    if ptx is None:
        return "\n".join(lines)
    lines += [
        "",
        f"PPO-ptx iteration: {ptx['ptx_seconds']:.2f} s, plain {ptx['plain_seconds']:.2f} s: "
        f"{ptx['overhead_beyond_tokens']:+.1%} of a plain iteration beyond the cost of its tokens",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--large", action="store_true", help="models of 124M parameters too")
    extent.add_argument("--quick", action="store_true", help="one round of the 3M models, no growth: a few minutes")
    extent.add_argument(
        "--headline", action="store_true", help="the 30M model and growth, under ten minutes on one core"
    )
    parser.add_argument("--rounds", type=int, help="of alternated runs; 3, with --headline 2, with --quick 1")
    parser.add_argument("--iterations", type=int, help="measured in every run; 2, with --headline 1")
    parser.add_argument("--environment", type=Path, default=ROOT / ".plumbline" / "trl", help="where TRL is installed")
    parser.add_argument("--output", type=Path, default=ROOT / ".plumbline" / "bench.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    trl = trl_python(asked.environment)
    rounds = asked.rounds or (1 if asked.quick else 2 if asked.headline else 3)
    iterations = asked.iterations or (1 if asked.headline else 2)
    rates = machine.fp32_gflops()
    results: Result = {
        "processor": machine.processor(),
        "torch": torch.__version__,
        "gemm_gflops": max(rates.values()),
        "gemm_of": max(rates, key=lambda name: rates[name]),
        "bf16_gflops": machine.gemm_gflops(torch.bfloat16),
        "read_gb_per_s": machine.read_gb_per_s(),
    }
    if asked.headline:
        works = [("30M", "varlen", HEADLINE_BATCH)]
    else:
        sizes = ["3M"] if asked.quick else ["3M", "30M"] + (["124M"] if asked.large else [])
        works = [(size, lengths, 64) for size in sizes for lengths in ("varlen", "fixed")]
    results["headline"] = [
        headline(trl, size, lengths, rounds, iterations, results["gemm_gflops"], batch)
        for size, lengths, batch in works
    ]
    results["growth"] = {} if asked.quick else growths(trl, GROWTH["headline" if asked.headline else "full"])
    results["rows"] = None if asked.quick else rows.growth(rows.SIZES[:2] if asked.headline else rows.SIZES)
    results["ptx"] = None if asked.headline else pretraining_cost(works[-1][0], rounds, iterations)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(results, indent=1) + "\n")
    print("\n" + report(results) + f"\n\neverything: {asked.output}")


if __name__ == "__main__":
    main()
