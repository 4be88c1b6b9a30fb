import hashlib
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from tasks.data_prep.tokenizer import train_tokenizer
from tasks.engine.errors import DataError
from tasks.records import data as records_data
from tasks.records.data import PreparedData, PreparedRecords, write_prepared_data
from tasks.records.records import BenchmarkItem, Comparison, Demonstration, Document, Prompt
from tests.unit.data_prep.samples import model


def prompt(name: str) -> Prompt:
    metadata = {"targets": ["ß", "b"], "held_out": name == "t", name: {"only": 1.5}}
    return Prompt(prompt_id=name, owner_id=f"owner {name}", text=f"say {name}\n🙂", kind="chat", metadata=metadata)


RECORDS = PreparedRecords(
    demonstrations={
        "train": [Demonstration(prompt=prompt(name), response=f"yes {name}", labeler_id="l") for name in "ab"],
        "valid": [Demonstration(prompt=prompt("c"), response="no", labeler_id="m")],
    },
    comparison_prompts={"train": [prompt("d")]},
    comparisons={
        "train": [
            Comparison(prompt=prompt("e"), completions=["x", "", "z"], ranks=[2, 1, 2], labeler_id="l"),
            Comparison(
                prompt=prompt("f"),
                completions=["x", "y"],
                ranks=[1, 1],
                labeler_id="l",
                source_policy=["sft", "ppo"],
                finished=[True, False],
            ),
        ]
    },
    rl_prompts={"train": [prompt(f"r{i}") for i in range(2500)], "valid": [prompt("v")]},
    documents={"train": [Document(text="long ago", source="book")], "valid": [Document(text="now")]},
    test_prompts=[prompt("t")],
    benchmarks=[
        BenchmarkItem(item_id="1", task="piqa", form="choice", context="c", choices=["x", "y"], answer=1),
        BenchmarkItem(item_id="2", task="drop", form="exact", context="c", references=["7"]),
    ],
    toxicity_prompts=[prompt("x")],
)


def filled(folder: Path) -> PreparedData:
    write_prepared_data(folder, RECORDS, train_tokenizer(model(), ["say yes no"]))
    return PreparedData(folder)


def test_everything_comes_back(tmp_path: Path) -> None:
    data = filled(tmp_path)
    for split in ("train", "valid"):
        assert data.demonstrations(split) == list(RECORDS.demonstrations[split])
        assert data.comparison_prompts(split) == list(RECORDS.comparison_prompts.get(split, []))
        assert data.comparisons(split) == list(RECORDS.comparisons.get(split, []))
        assert data.rl_prompts(split) == list(RECORDS.rl_prompts[split])
        assert data.documents(split) == list(RECORDS.documents[split])
    assert data.prompts_for_test() == list(RECORDS.test_prompts)
    assert data.benchmarks() == list(RECORDS.benchmarks)
    assert data.toxicity_prompts() == list(RECORDS.toxicity_prompts)
    assert data.tokenizer().get_vocab()["say"] > 2


def test_files_are_plain_arrow(tmp_path: Path) -> None:
    filled(tmp_path)
    rows = Dataset.from_file(str(tmp_path / "demonstrations" / "train.arrow"))
    assert rows["response"][:] == ["yes a", "yes b"]
    assert not (tmp_path / "comparisons" / "valid.arrow").exists()


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        filled(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = digests(tmp_path / "one")
    assert first == digests(tmp_path / "two")
    assert len(first) > 10


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no prepared data, expected tokenizer/ and Arrow files; run data_prep"):
        PreparedData(tmp_path)


def test_a_record_is_made_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = records_data.record_of

    def counted(row: dict[str, Any], kind: type[Any]) -> Any:
        made.append(row["prompt_id"])
        return real(row, kind)

    monkeypatch.setattr(records_data, "record_of", counted)
    found, expected = filled(tmp_path).demonstrations("train"), list(RECORDS.demonstrations["train"])
    assert len(found) == len(expected) and made == []
    assert found[-1] == expected[-1] and len(made) == 1
    assert found[:1] == expected[:1] and len(made) == 2
    assert next(iter(found)) == expected[0] and len(made) == 3
    assert found == expected and found != expected[:-1] and list(found) == list(found)
    with pytest.raises(IndexError):
        found[len(expected)]
