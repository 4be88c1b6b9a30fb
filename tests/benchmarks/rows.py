"""Data preparation of one's own rows, alone: rows a second, peak memory, and how both grow.

    python -m tests.benchmarks.rows [--rows 10000 40000 160000] [--processes 1 2]

Made-up demonstrations, rankings and prompts of some 20 words each, with repetitions, personal data, owners and long rows among
them; a word-level tokenizer is trained on what is left. Every measurement runs in a process of its own.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.benchmarks import machine

ROOT = Path(__file__).parents[2]
SIZES = (10_000, 40_000, 160_000)
Result = dict[str, Any]


def write_rows(folder: Path, rows: int) -> None:
    """Half demonstrations, three tenths rankings, two tenths prompts."""
    draws = random.Random(7)
    words = ["".join(draws.choices("abcdefghijklmnopqrstuvwxyz", k=draws.randint(2, 9))) for _ in range(3000)]

    def text(fewest: int, most: int) -> str:
        return " ".join(draws.choices(words, k=draws.randint(fewest, most)))

    def prompts() -> Iterator[dict[str, str]]:
        seen: list[str] = []
        while True:
            kind = draws.random()
            again = draws.choice(seen) if seen and kind < 0.06 else ""
            asked = again + draws.choice(["", " again"]) if again else text(6, 18)
            asked += " ann@example.com" if kind > 0.99 else text(300, 320) if kind > 0.985 else ""
            seen = [*seen[-500:], asked]
            yield {"prompt": asked} | ({"owner_id": f"o{draws.randrange(rows)}"} if kind > 0.7 else {})

    asked = prompts()
    files = {
        "demonstrations.jsonl": (rows // 2, lambda: {**next(asked), "response": text(8, 30)}),
        "comparisons.jsonl": (3 * rows // 10, lambda: {**next(asked), "chosen": text(8, 30), "rejected": text(8, 30)}),
        "rl_prompts.jsonl": (rows // 5, lambda: next(asked)),
    }
    for name, (count, row) in files.items():
        with (folder / name).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row()) + "\n" for _ in range(count))


def measure(rows: int, processes: int) -> Result:
    """In this process, and those that it starts."""
    import psutil
    import torch

    from tasks.data_prep.prepare import prepare
    from tests.unit.data_prep.samples import model, own_data

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        write_rows(folder / "in", rows)
        ended, peak, this = threading.Event(), [0], psutil.Process()

        def watch() -> None:
            while not ended.wait(0.2):
                held = []
                for process in [this, *this.children()]:
                    with suppress(psutil.Error):  # it has ended
                        held.append(process.memory_info())
                peak[0] = max(peak[0], sum(memory.rss - memory.shared for memory in held))

        threading.Thread(target=watch, daemon=True).start()
        at_start = this.memory_info().rss - this.memory_info().shared
        began, busy = time.perf_counter(), time.process_time()
        config = own_data(folder / "in", prompt_tokens=256, response_tokens=64)
        metrics = prepare(config, model(vocab_size=4000), folder / "out", processes=processes)
        wall, children = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = time.process_time() - busy + children.ru_utime + children.ru_stime
        ended.set()
    return {
        "rows": metrics["rows/read"],
        "processes": processes,
        "wall": wall,
        "cpu": cpu,
        "start_mb": at_start / 1e6,
        "peak_mb": peak[0] / 1e6,
    }


def measured(rows: int, processes: int) -> Result:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.rows", "--alone", str(rows), str(processes)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    result: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def growth(sizes: Sequence[int], processes: int = 1) -> Result:
    """One measurement for each number of rows."""
    return growth_of([measured(rows, processes) for rows in sizes])


def growth_of(runs: Sequence[Result]) -> Result:
    """CPU seconds over rows, and their exponent."""
    exponent = machine.growth_exponent([run["rows"] for run in runs], [run["cpu"] for run in runs])
    return {"exponent": exponent, "runs": runs}


def report(found: Result) -> str:
    """A line for each size."""
    first = found["runs"][0]
    lines = [f"rows of data preparation: CPU seconds grow with exponent {found['exponent']:.2f}"]
    for run in found["runs"]:
        rate, slower = run["rows"] / run["cpu"], (run["cpu"] / run["rows"]) / (first["cpu"] / first["rows"])
        lines.append(
            f"  {run['rows']:>9,.0f} rows, {run['processes']} processes: {run['cpu']:.1f} CPU s, {run['wall']:.1f} s, "
            f"{rate:,.0f} rows/CPU s, {slower:.2f} of the first a row; peak {run['peak_mb']:,.0f} MB, "
            f"of which {run['start_mb']:,.0f} before the first row"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    parser.add_argument("--alone", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(measure(*asked.alone)))
        return
    for processes in asked.processes:
        print(report(growth(asked.rows, processes)), flush=True)


if __name__ == "__main__":
    main()
