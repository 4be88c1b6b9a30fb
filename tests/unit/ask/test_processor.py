"""What is advised on which processor."""

from pathlib import Path

import pytest

from flows.ask import processor
from flows.ask.dry_run import page
from flows.config import load
from tests.unit import tiny_models

INTEL = "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16 amx_tile\nbogomips\t: 1\nflags\t\t: fpu amx_bf16\n"
AMD = "flags\t\t: fpu avx512f avx512_bf16\n"
ARM = "Features\t: fp asimd i8mm bf16 dgh\n"
OLD = "model name\t: made of avx512_bf16\nflags\t\t: fpu avx2\n"


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize(
    ("text", "units"), [(INTEL, "amx_bf16"), (AMD, "avx512_bf16"), (ARM, "bf16"), (OLD, None), (None, None)]
)
def test_the_units_are_those_the_system_lists(on: Path, text: str | None, units: str | None) -> None:
    if text is not None:
        on.write_text(text)
    assert processor.bf16_units() == units


def test_bf16_is_advised_where_it_is_there_and_pays(on: Path) -> None:
    on.write_text(INTEL)
    asked = tiny_models.runtime()
    line = processor.advice(asked, 30_000_000)
    assert line is not None and "(amx_bf16): runtime.precision=bf16 is advised for 30,000,000 parameters" in line
    assert processor.advice(asked, 3_000_000) is None
    assert processor.advice(tiny_models.runtime(device="cuda"), 30_000_000) is None
    taken = processor.advice(tiny_models.runtime(precision="bf16"), 3_000_000)
    assert taken == "this processor multiplies bf16 (amx_bf16), and the run uses it"
    on.write_text(OLD)
    assert processor.advice(asked, 30_000_000) is None


def test_a_dry_run_prints_it(on: Path) -> None:
    on.write_text(AMD)
    assert "processor\n  this processor multiplies bf16 (avx512_bf16), and" in page(load(["runtime.precision=bf16"]))
    assert "\nprocessor\n" not in page(load([]))
