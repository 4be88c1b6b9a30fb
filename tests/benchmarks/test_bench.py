"""The arithmetic behind the benchmarks, and one miniature run of each command's parts."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.benchmarks import bench, bench_gpu, machine, our_side, profile, rows, workload
from tests.benchmarks.workload import SIZES, Work

TINY = Work("3M", "varlen", batch=4, minibatch=2, response=4, iterations=1)


def test_work_survives_the_command_line() -> None:
    work = Work("9M", "fixed", 8, 4, 12, "bf16", 2, 0.5, "recomputed", "cuda")
    assert workload.parse(work.arguments()) == work != Work()


def test_the_sizes_are_what_their_names_say() -> None:
    for name, millions in (("3M", 3.05), ("9M", 8.9), ("30M", 29.9), ("124M", 123.6)):
        with torch.device("meta"):
            model = LlamaForCausalLM(workload.shape(name))
        assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.01)


def test_necessary_operations_are_those_of_the_matrices() -> None:
    """Against the parameters of the real model, one multiplication and one addition each."""
    work = Work("3M", batch=10**9)  # episodes of three tokens: attention costs next to nothing
    with torch.device("meta"):
        layers = LlamaForCausalLM(workload.shape("3M")).model.layers
    whole = sum(param.numel() for param in layers[0].parameters() if param.ndim == 2)
    unread = sum(getattr(layers[0].self_attn, name).weight.numel() for name in ("k_proj", "v_proj"))
    head = SIZES["3M"]["hidden_size"] * SIZES["3M"]["vocab_size"]
    tokens, read = 3e9, 1e9
    trunk = 5 * tokens * whole + read * whole + (tokens - read) * unread
    needed = machine.necessary_gflops(work, response_tokens=read, prompt_tokens=tokens - read)
    assert needed["generation"] == pytest.approx(2e-9 * (trunk + read * head), rel=2e-3)
    assert needed["scoring"] == pytest.approx(2e-9 * (3 * trunk + read * head), rel=2e-3)
    assert needed["update"] == pytest.approx(2e-9 * (6 * trunk + 3 * read * head), rel=2e-3)


def test_the_exponent_of_a_power_is_found() -> None:
    assert machine.growth_exponent([1, 2, 8], [3, 3 * 2**1.5, 3 * 8**1.5]) == pytest.approx(1.5)


def test_ratios_are_of_medians_with_the_range_of_rounds() -> None:
    theirs, ours = ([{"seconds": {"total": s}} for s in seconds] for seconds in ((4.0, 6.0, 9.0), (2.0, 2.0, 4.5)))
    assert bench.ratio(theirs, ours, "total") == (3.0, 2.0, 3.0)


def test_a_step_reads_weights_and_cache() -> None:
    weights = 2 * (6 * (4 * 192**2 + 3 * 192 * 512) + 192 * 2048)
    assert bench_gpu.bytes_per_step("3M", 0, 100) == weights
    assert bench_gpu.bytes_per_step("3M", 2, 100) - weights == 2 * (2 * 6 * 192 * 2 * 100)


def test_our_side_does_the_work_it_is_asked_for() -> None:
    done = our_side.measure(TINY)
    assert {name: done[name] for name in ("size", "batch", "response")} == {"size": "3M", "batch": 4, "response": 4}
    parts = done["seconds"]
    assert 0 < parts["generation"] + parts["scoring"] + parts["update"] <= parts["total"]
    assert 4 <= parts["response_tokens"] <= 16
    fixed = our_side.measure(replace(TINY, lengths="fixed", gamma=1.0))
    assert fixed["seconds"]["response_tokens"] == 16


def test_the_profile_names_every_phase_and_times_the_same_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    rolled: list[list[list[int]]] = []
    usual = profile.our_side.PPOLearner._train
    monkeypatch.setattr(
        profile.our_side.PPOLearner,
        "_train",
        lambda self, episodes, *rest: (rolled.append(episodes.responses), usual(self, episodes, *rest))[1],
    )
    value = profile.ScalarModel.values
    found = profile.measure(replace(TINY, response=16))
    named = {phase for *_, phase in profile.PHASES} | {"value forward", "rest"}
    assert set(found["phases"]) == named - {"sampling: rows taken out"} | (set(found["phases"]) & named)
    assert rolled[1] == rolled[2] != rolled[0], "warm-up, and the second iteration twice"
    assert profile.ScalarModel.values is value
    kinds = found["kinds"]
    assert {"products", "products, decoding", "products, weights' gradients", "attention", "views"} <= set(kinds)
    assert sum(row["seconds"] for row in kinds.values()) > 0.3 * sum(found["phases"].values())
    assert "GFLOP/s" in profile.report(found, "some")


def test_products_are_counted_and_told_apart() -> None:
    half, left, right = torch.bfloat16, ((5, 7), (7, 1)), ((7, 3), (1, 7))
    product = profile.Operator("backward", "mm.", ((*left, half), (*right, half)))
    turned = product._replace(tensors=(((5, 7), (1, 5), half), (*right, half)))
    assert profile.gflop(product) == pytest.approx(2e-9 * 5 * 7 * 3)
    assert (product.kind, turned.kind) == ("products", "products, weights' gradients")
    assert product._replace(phase="sampling: head", name="addmm.").kind == "products, decoding"
    names = {
        "_softmax.": "attention",
        "_log_softmax.": "log-softmax, draws",
        "t.": "views",
        "tanh.": "elementwise, copies",
    }
    assert {name: product._replace(name=name).kind for name in names} == names
    assert profile.alone(product, 1) > 0


def test_without_a_gpu_the_gpu_benchmark_measures_a_miniature_and_says_so() -> None:
    found = bench_gpu.measure(bench_gpu.CPU, trl=None)
    assert found["decoding"][0]["ours"] > 0 and found["ppo"]["episodes_per_second"] > 0
    assert bench_gpu.report(found).startswith("CPU MINIATURE: no GPU was found")


def test_every_figure_of_the_tables_is_printed() -> None:
    run = {
        "seconds": dict.fromkeys((*bench.PHASES, "wall"), 2.0) | {"response_tokens": 16.0},
        "peak_mb_above_start": 5.0,
    }
    row = bench.headline_row(
        TINY,
        {"trl": [run], "plumbline": [run], "plumbline recomputed": [run], "trl onednn": [run], "plumbline bf16": [run]},
        100,
    )
    growth = {"axis": [1.0], "trl_seconds": [4.0], "our_seconds": [2.0], "our_exponent": 1.0, "trl_exponent": 1.1}
    facts = {
        "processor": "some",
        "gemm_gflops": 1.0,
        "gemm_of": "oneDNN",
        "bf16_gflops": 2.0,
        "read_gb_per_s": 3.0,
        "torch": "9",
    }
    ptx = {"plain_seconds": 1.0, "ptx_seconds": 1.5, "overhead_beyond_tokens": 0.04}
    prepared = rows.growth_of(
        [
            {"rows": 1e4, "processes": 1, "wall": 4.0, "cpu": 3.0, "start_mb": 200.0, "peak_mb": 250.0},
            {"rows": 4e4, "processes": 1, "wall": 9.0, "cpu": 6.0, "start_mb": 200.0, "peak_mb": 260.0},
        ]
    )
    text = bench.report(facts | {"headline": [row], "growth": {"episodes": growth}, "ptx": ptx, "rows": prepared})
    assert "3M varlen         2.00    2.00   1.00 (1.00-1.00)" in text
    assert "1 GFLOP/s fp32 (oneDNN)" in text
    without = bench.report(facts | {"headline": [row], "growth": {}, "ptx": None, "rows": None})
    assert "PPO-ptx" in text and "PPO-ptx" not in without
    assert "exponent 1.00 (TRL 1.10)" in text and "TRL 4.00, ours 2.00, ratio 2.00" in text and "+4.0%" in text
    assert "rows of data preparation: CPU seconds grow with exponent 0.50" in text and "preparation" not in without
    assert "40,000 rows, 1 processes: 6.0 CPU s, 9.0 s, 6,667 rows/CPU s, 0.50 of the first a row; peak 260 MB" in text


def test_made_up_rows_of_every_kind_are_prepared() -> None:
    found = rows.measure(200, 1)
    assert found["rows"] == 200 and found["cpu"] > 0 and found["peak_mb"] >= 0


@pytest.mark.slow
def test_a_side_runs_in_a_process_of_its_own_and_its_failure_is_shown() -> None:
    assert bench.run(sys.executable, "our_side", TINY)["side"] == "plumbline"
    with pytest.raises(SystemExit, match=r"(?s)tests\.benchmarks\.our_side .*KeyError: '4M'"):
        bench.run(sys.executable, "our_side", replace(TINY, size="4M"))


@pytest.mark.slow
def test_the_gpu_command_writes_what_it_prints(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "tests.benchmarks.bench_gpu", "--output", str(output)]
    subprocess.run(command, cwd=bench.ROOT, capture_output=True, text=True, check=True)
    assert json.loads(output.read_text())["device"]
