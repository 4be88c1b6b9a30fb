"""Rows are never all in memory, and nobody can tell from an artifact how they were divided."""

import hashlib
import json
import logging
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from tasks.data_prep import prepare as story
from tasks.data_prep import shelf
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.job import DataPrepJob
from tasks.data_prep.prepare import prepare
from tasks.data_prep.task import prepare_data
from tasks.engine.context import StageContext, StageName
from tasks.engine.stage import run_stage
from tasks.records.data import PreparedData
from tests.unit import tiny_models
from tests.unit.data_prep.samples import model, own_data, write

NONE_NEEDED = dict.fromkeys(("demonstrations", "comparisons", "rl_prompts", "documents", "test_prompts"), 0)


def messy(folder: Path, rows: int) -> DataPrepConfig:
    """Every rule has something to do, in several files."""
    draws = random.Random(5)
    words = [f"w{place}" for place in range(200)]

    def text(count: int) -> str:
        return " ".join(draws.choices(words, k=count))

    asked = [text(draws.randint(3, 9)) for _ in range(rows // 2)]
    asked += [f"{prompt} w1" for prompt in asked[::2]]
    asked += [f"{text(4)} ann@example.com", f"{text(3)} <eos> x", text(90)]

    def row(**fields: Any) -> dict[str, Any]:
        owner = {"owner_id": f"o{draws.randint(0, 8)}"} if draws.random() < 0.4 else {}
        return {"prompt": draws.choice(asked), **owner, **fields}

    def vote() -> dict[str, Any]:
        best, worst = draws.choice([("yes", "no"), ("no", "yes"), ("no", "no")])
        return row(chosen=best, rejected=worst)

    demonstrations = [row(response=text(5) + draws.choice(["", "", "<eos>"])) for _ in range(rows)]
    demonstrations.append({"messages": [{"role": "user", "content": "nobody answers"}]})
    files = {
        "demonstrations_a.jsonl": demonstrations[: rows // 3],
        "demonstrations_b.jsonl.gz": demonstrations[rows // 3 :],
        "comparisons.jsonl": [vote() for _ in range(rows)],
        "rl_prompts.jsonl": [row() for _ in range(rows)],
        "pretrain.jsonl": [{"text": text(6)} for _ in range(rows // 2)],
        "test_prompts.jsonl": [row() for _ in range(5)],
    }
    write(folder, files)
    return own_data(folder, prompt_tokens=50, max_prompts_per_owner=10)


def digests(config: DataPrepConfig, folder: Path, processes: int = 1) -> dict[str, str]:
    folder.mkdir()
    prepare(config, model(), folder, processes=processes)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bytes_do_not_depend_on_how_many_rows_are_held_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = messy(tmp_path / "in", 300)
    expected = digests(config, tmp_path / "1")
    audit = json.loads((tmp_path / "1" / "audit.json").read_text())
    rules = {rule for row in audit["rows"] for rule in row["dropped"]}
    assert rules >= {"pii", "same_response", "in_held_out_split", "duplicate", "duplicate_prefix", "owner_cap"}
    assert rules >= {"long_prompt", "special_token", "no_answer", "became_test_prompts"}
    monkeypatch.setattr(shelf, "ROWS", 7)
    assert digests(config, tmp_path / "2") == expected


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = messy(tmp_path / "in", 300)
    monkeypatch.setattr(story, "ROWS_WORTH_A_PROCESS", 1)
    expected = digests(config, tmp_path / "1")
    assert digests(config, tmp_path / "2", processes=2) == digests(config, tmp_path / "3", processes=3) == expected


def test_the_account_is_the_one_of_all_rows_in_memory(tmp_path: Path) -> None:
    """Computed by an earlier version, which held every row in lists and compared texts instead of digests."""
    (tmp_path / "out").mkdir()
    prepare(messy(tmp_path / "in", 300), model(), tmp_path / "out")
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    data = PreparedData(tmp_path / "out")
    kept = [[item.prompt.text, item.response] for item in data.demonstrations("train")]
    kept += [[item.prompt.text, *item.completions] for item in data.comparisons("train")]
    kept += [
        [prompt.text] for prompt in [*data.rl_prompts("train"), *data.rl_prompts("valid"), *data.prompts_for_test()]
    ]
    told = json.dumps([audit["rows"], audit["leak_check"], audit["pii_rules"], audit["notices"], kept], sort_keys=True)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "5abe1e35eea1235c"


def test_a_prompt_of_one_file_is_found_again_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "ROWS", 3)
    rows = [{"prompt": f"{place} is asked here", "response": "x"} for place in range(40)]
    again = [{"prompt": "17  is ASKED here", "response": "y"}, {"prompt": "new one", "response": "z"}]
    folder = write(tmp_path / "in", {"demonstrations_a.jsonl": rows, "demonstrations_b.jsonl": again})
    (tmp_path / "out").mkdir()
    config = own_data(folder).model_copy(update={"validation_fraction": 0.0, "test_fraction": 0.0})
    prepare(config, model(), tmp_path / "out")
    (row,) = [
        row
        for row in json.loads((tmp_path / "out" / "audit.json").read_text())["rows"]
        if (row["role"], row["split"]) == ("demonstrations", "train")
    ]
    assert row["dropped"] == {"duplicate": 1}
    assert row["examples"] == {"duplicate": "demonstrations_b.jsonl:1"}


class Bars:
    """Total, unit and count of every bar."""

    def __init__(self) -> None:
        self.shown: list[list[Any]] = []

    @contextmanager
    def bar(self, total: int, unit: str) -> Iterator["Bars"]:
        self.shown.append([total, unit, 0])
        yield self

    def update(self, more: int = 1) -> None:
        self.shown[-1][2] += more


def test_rows_are_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 rows of 10 KB, 50 at a time."""
    monkeypatch.setattr(shelf, "ROWS", 50)
    monkeypatch.setattr("tasks.records.data.ROWS_PER_WRITE", 50)
    long = "x" * 10_000
    rows = [{"prompt": f"{place} which", "response": f"{place} {long}"} for place in range(2_000)]
    config = own_data(write(tmp_path / "in", {"demonstrations.jsonl": rows}), response_tokens=10, drop_pii=False)
    del rows
    bars, usual, arrow = Bars(), pyarrow.default_memory_pool(), pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    pyarrow.set_memory_pool(arrow)
    try:
        prepare(config, model(), tmp_path / "out", progress=bars.bar)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        pyarrow.set_memory_pool(usual)
        tracemalloc.stop()
    assert peak < 6e6
    assert 5e5 < arrow.max_memory() < 5e6
    assert bars.shown == [[2_000, "row", 2_000], [2_000, "measured row", 2_000]]


def test_the_stage_says_how_many_rows_a_second_it_prepared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = DataPrepJob(data_prep=messy(tmp_path / "in", 60), model=model(), documents_for=[])
    context = StageContext(
        store=str(tmp_path / "store"),
        tracking_uri="",
        experiment_id="",
        parent_run_id="run",
        runtime=tiny_models.runtime(),
    )
    with caplog.at_level(logging.INFO, logger="plumbline"):
        run_stage(StageName(group="data_prep"), job, context, {}, lambda: prepare_data, package="tasks.data_prep")
    (line,) = [record.message for record in caplog.records if "rows/s" in record.message]
    assert line.startswith("data_prep: 216 rows in ")
