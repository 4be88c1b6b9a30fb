"""Kinds of files: the same rows from each, and what is said of those that cannot be read."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from tasks.data_prep.sources.files.kinds import rows_in, whole_datasets
from tasks.engine.errors import DataError
from tasks.engine.inputs import files_below
from tests.unit.data_prep.samples import write
from tests.unit.data_prep.test_folder import read

ROWS: list[dict[str, Any]] = [
    {"prompt": "one, two", "completions": ["a", "b"], "ranks": [1, 2]},
    {"prompt": "[INST] three", "completions": ["[1, 2]", "d"], "ranks": [2, 1]},
]


def save(folder: Path, kind: str) -> None:
    """The same rows as a file of one kind."""
    folder.mkdir(exist_ok=True)
    if kind == "saved":
        Dataset.from_list(ROWS).save_to_disk(folder / "comparisons")
    elif kind == "saved_dict":
        DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(folder / "comparisons")
    elif kind == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "comparisons.parquet")
    else:
        cells = [[row["prompt"], json.dumps(row["completions"]), json.dumps(row["ranks"])] for row in ROWS]
        quoted = "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in cells)
        text = {
            ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
            ".json": json.dumps(ROWS, indent=1),
            ".csv": "\ufeffprompt,completions,ranks\n" + quoted,
        }[kind.removesuffix(".gz")]
        raw = text.encode()
        (folder / f"comparisons{kind}").write_bytes(gzip.compress(raw) if kind.endswith(".gz") else raw)


KINDS = [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet", "saved", "saved_dict"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    save(tmp_path, kind)
    found = read(tmp_path).comparisons
    assert [(item.prompt.text, item.completions, item.ranks) for item in found] == [
        (row["prompt"], row["completions"], row["ranks"]) for row in ROWS
    ]


@pytest.mark.parametrize(
    ("kind", "place"), [(".json", "[1]"), (".csv", ":3"), (".parquet", " row 1"), ("saved", " row 1")]
)
def test_a_place_is_named_as_the_kind_counts(tmp_path: Path, kind: str, place: str) -> None:
    save(tmp_path, kind)
    records = read(tmp_path)
    assert records.origin(records.comparisons[1]).where.removeprefix("comparisons").removeprefix(kind) == place


def test_a_json_file_may_hold_lines(tmp_path: Path) -> None:
    (tmp_path / "rl_prompts.json").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    assert [item.text for item in read(tmp_path).rl_prompts] == ["one", "two"]


def test_several_saved_splits_are_told_apart(tmp_path: Path) -> None:
    splits = {name: Dataset.from_list([{"prompt": name}]) for name in ("train", "test")}
    DatasetDict(splits).save_to_disk(tmp_path / "prompts")
    assert read(tmp_path).rl_prompts == []
    assert [item.text for item in read(tmp_path, rl_prompts=["prompts/train"]).rl_prompts] == ["train"]


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "rl_prompts.jsonl").write_bytes(gzip.compress(b'{"prompt": "one"}'))
    assert [item.text for item in read(tmp_path).rl_prompts] == ["one"]


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        (
            "rl_prompts.csv",
            b"prompt,x\na,b\nc\n",
            r"csv:3: found 1 cells, expected 2, one for each column; quote cells",
        ),
        ("rl_prompts.csv", b"prompt,prompt\na,b\n", r"csv:1: found two columns called 'prompt', expected one; rename"),
        ("rl_prompts.csv", b'prompt\n""\n', r"csv:2: 'prompt' is empty, expected a text; fill it in or remove the row"),
        ("rl_prompts.csv", b"prompt;x\na;b\n", r"csv:1: found one column called 'prompt;x', expected .* with commas$"),
        ("rl_prompts.csv", b"prompt\tx\na\tb\n", r"csv:1: found one column called 'prompt\\tx', expected columns with"),
        ("rl_prompts.csv", b"text\na\n", r"csv:2: 'prompt' is missing \(found: text\)"),
        ("rl_prompts.csv", b"prompt\n\xff\n", r"csv: found bytes that are not UTF-8 after line 1"),
        ("rl_prompts.csv", b'prompt\n"a" b\n', r"csv:2: found broken CSV"),
        ("rl_prompts.csv", b'prompt\na\n"b\nc\n', r"csv:3: found broken CSV"),
        ("rl_prompts.csv", b'"prompt" x\na\n', r"csv:1: found broken CSV"),
        ("rl_prompts.parquet", b"not parquet", r"parquet row 0: found unreadable data \(.*expected a Parquet file"),
        ("rl_prompts.json", b'[{"prompt": "a"},\n{]', r"json: found broken JSON \(line 2, column 2: .*expected JSON"),
        ("rl_prompts.json", b'[{"prompt": "a"}, 3]', r"json\[1\]: found a number, expected a JSON object"),
        (
            "rl_prompts.json",
            b'{"data": [\n{"prompt": "a"}\n]}',
            r"json: found an object, expected a JSON array of",
        ),
        ("rl_prompts.json", b'{"prompt": 3}', r"json:1: 'prompt' is a number, expected a text; write it in quotes"),
    ],
)
def test_mistakes(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_cell_of_json_objects_that_are_no_messages_is_a_text(tmp_path: Path) -> None:
    spelled = '[{"name": "Ann"}]'
    (tmp_path / "demonstrations.csv").write_text('prompt,response\na,"[{""name"": ""Ann""}]"\nb,[]\n')
    assert [row.response for row in read(tmp_path).demonstrations] == [spelled, "[]"]


def test_a_column_of_numbers_cannot_be_quoted(tmp_path: Path) -> None:
    table = pyarrow.table({"prompt": ["a"], "response": [42]})
    pyarrow.parquet.write_table(table, tmp_path / "demonstrations.parquet")
    with pytest.raises(DataError, match="row 0: 'response' is a number, expected a text; make the column one of text"):
        read(tmp_path)
    (tmp_path / "demonstrations.parquet").unlink()
    (tmp_path / "demonstrations.csv").write_text("prompt,response\na,42\n")
    assert read(tmp_path).demonstrations[0].response == "42"


def test_a_damaged_saved_dataset(tmp_path: Path) -> None:
    save(tmp_path, "saved")
    (tmp_path / "comparisons" / "data-00000-of-00001.arrow").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"^comparisons: found unreadable data .*as save_to_disk writes it; copy it again"
    ):
        read(tmp_path)


def test_files_without_rows_are_noted(tmp_path: Path) -> None:
    write(tmp_path, {"rl_prompts.jsonl": []})
    (tmp_path / "demonstrations.csv").write_text("prompt,response\n")
    assert read(tmp_path).notices == ["demonstrations.csv: it holds no rows", "rl_prompts.jsonl: it holds no rows"]


def test_rows_are_chosen_by_their_fields(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "license": name} for n, name in enumerate(["mit", "cc0", "mit", None])]
    write(tmp_path, {"rl_prompts.jsonl": [*rows, {"prompt": "none"}]})
    records = read(tmp_path, where={"license": ["mit"]})
    assert [item.text for item in records.rl_prompts] == ["p0", "p2"]
    assert records.notices == ["rl_prompts.jsonl: 3 of 5 rows left alone, data_prep.files.where asks for license"]
    assert len(read(tmp_path, where={"license": ["mit", None]}).rl_prompts) == 4
    with pytest.raises(DataError, match=r"files\.where: found no row with a field licence, expected some; correct"):
        read(tmp_path, where={"licence": ["mit"]})


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "rl_prompts.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(
        DataError, match=r"rl_prompts\.jsonl:1: found unreadable data \(No such file.*what the link points"
    ):
        read(tmp_path)


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".csv", ".parquet", "saved"])
def test_rows_are_counted_without_being_read(tmp_path: Path, kind: str) -> None:
    save(tmp_path, kind)
    (path,) = whole_datasets(files_below(tmp_path)).values()
    assert rows_in(path) == len(read(tmp_path).comparisons) + (kind == ".csv")  # its header is a line too


def test_what_cannot_be_counted_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no")
    assert rows_in(tmp_path / "broken.parquet") == rows_in(tmp_path / "missing.jsonl") == 0
