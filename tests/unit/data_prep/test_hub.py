from pathlib import Path
from typing import Any

import pytest

from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.prepare import rows_to_read
from tasks.data_prep.sources.records import SourceRecords
from tasks.engine.errors import DataError
from tasks.language.plain_layout import PlainLayout
from tests.unit.data_prep.samples import read_hub, values, write


def read(hub: dict[str, Any], minimum: int = 0) -> SourceRecords:
    loaded = values("hub", hub=hub)
    loaded["minimum_rows"] = dict.fromkeys(loaded["minimum_rows"], minimum)
    config = DataPrepConfig(**loaded)
    assert config.hub is not None
    return read_hub(config.hub, config.minimum_rows, PlainLayout("{prompt} =>"))


def role(folder: Path, **fields: str) -> dict[str, Any]:
    return {"name": str(folder), "config": None, "split": "train", "revision": "main", "fields": fields}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("cache")
def test_columns_are_renamed_and_dotted_paths_reach_inside(tmp_path: Path) -> None:
    chat = [{"messages": [{"content": "ask"}, {"content": "answer"}], "id": 1}]
    bench = [{"q": "q", "opts": ["x", "y"], "label": 1}]
    write(tmp_path, {"chat/data.jsonl": chat, "quiz/data.jsonl": bench})
    records = read(
        {
            "demonstrations": role(tmp_path / "chat", prompt="messages.0.content", response="messages.1.content"),
            "benchmarks": role(tmp_path / "quiz", query="q", choices="opts", gold="label"),
        }
    )
    assert (records.demonstrations[0].prompt.text, records.demonstrations[0].response) == ("ask =>", "answer")
    assert (records.benchmarks[0].task, records.benchmarks[0].answer) == ("quiz", 1)


@pytest.mark.usefixtures("cache")
def test_rows_are_counted_before_they_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"data/data.jsonl": [{"prompt": "a"}, {"prompt": "b"}]})
    asked = {"rl_prompts": role(tmp_path / "data", prompt="prompt"), "demonstrations": role(Path("nobody/nothing"))}
    config = DataPrepConfig(**values("hub", hub=asked))
    assert rows_to_read(config) == 2


@pytest.mark.usefixtures("cache")
def test_mistakes(tmp_path: Path) -> None:
    write(tmp_path, {"data/data.jsonl": [{"prompt": "a", "empty": " "}]})
    data = tmp_path / "data"
    with pytest.raises(
        DataError, match=r"found no column text \(columns: empty, prompt\).*hub\.rl_prompts\.fields\.prompt"
    ):
        read({"rl_prompts": role(data, prompt="text")})
    with pytest.raises(DataError, match=r"data \(train\) row 0: 'prompt' is empty"):
        read({"rl_prompts": role(data, prompt="empty")})
    with pytest.raises(DataError, match="found fields question, expected a known benchmark format; map the columns"):
        read({"benchmarks": role(data, question="prompt")})
    with pytest.raises(DataError, match="found no dataset for demonstrations, expected one because minimum_rows"):
        read({"rl_prompts": role(data, prompt="prompt")}, minimum=1)
    with pytest.raises(DataError, match=r"hub\.rl_prompts: nobody/nothing could not be loaded .*HF_HUB_OFFLINE unset"):
        read({"rl_prompts": role(Path("nobody/nothing"), prompt="prompt")})


@pytest.mark.usefixtures("cache")
def test_numbers_and_empty_cells_of_a_table_have_sentences_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "data.csv").write_text("ask,say\na,42\n")
    columns = {"prompt": "ask", "response": "say"}
    with pytest.raises(DataError, match=r"row 0: 'response' is a number, expected a text; make the column one of text"):
        read({"demonstrations": role(tmp_path / "numbers", **columns)})
    (tmp_path / "gaps").mkdir()
    (tmp_path / "gaps" / "data.csv").write_text("ask,say\na,b\nc,\n")
    with pytest.raises(
        DataError, match=r"gaps \(train\) row 1: 'response' is empty, expected a text; fill it in or remove"
    ):
        read({"demonstrations": role(tmp_path / "gaps", **columns)})
    write(tmp_path, {"nested/data.jsonl": [{"m": [{"c": "a"}]}, {"m": None}]})
    with pytest.raises(DataError, match=r"nested \(train\) row 1: 'prompt' is empty, expected a text"):
        read({"rl_prompts": role(tmp_path / "nested", prompt="m.0.c")})


@pytest.mark.usefixtures("cache")
def test_without_a_mapping_the_layouts_are_recognised(tmp_path: Path) -> None:
    chat = [{"messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "answer"}], "id": 7}]
    write(tmp_path, {"chat/data.jsonl": chat})
    records = read({"demonstrations": role(tmp_path / "chat")})
    assert (records.demonstrations[0].prompt.text, records.demonstrations[0].response) == ("ask =>", "answer")
