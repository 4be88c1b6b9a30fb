import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.data_prep.sources.folder import evenly_spaced
from tasks.data_prep.sources.records import SourceRecords
from tasks.engine.errors import DataError
from tasks.language.plain_layout import PlainLayout
from tests.unit.data_prep.samples import everything, own_data, read_folder, write


def read(folder: Path, layout: str = "{prompt}", minimum: int = 0, **files: Any) -> SourceRecords:
    config = own_data(folder, files=files, minimum=minimum)
    assert config.files is not None
    return read_folder(str(folder), config.files, config.minimum_rows, PlainLayout(layout))


def test_every_role_is_found_by_its_file_name(tmp_path: Path) -> None:
    records = read(everything(tmp_path, 3), minimum=1)
    found = {name: len(rows) for name, rows in vars(records).items() if isinstance(rows, list)}
    assert found == {
        "demonstrations": 3,
        "comparison_prompts": 0,
        "comparisons": 3,
        "rl_prompts": 3,
        "documents": 3,
        "test_prompts": 5,
        "benchmarks": 1,
        "toxicity_prompts": 1,
        "notices": 0,
    }
    assert records.world is None


def test_demonstrations_owners_and_labelers(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hello  there", "response": "hi", "author": "ann", "kind": "chat"},
        {"prompt": "hello there", "response": "ho", "owner_id": "customer 7", "labeler": "bob", "author": "ann"},
        {"prompt": "hello THERE", "response": "hu"},
    ]
    first, second, third = read(write(tmp_path, {"sft_demonstrations.jsonl": rows})).demonstrations
    assert (first.labeler_id, second.labeler_id, third.labeler_id) == ("ann", "bob", "unknown")
    assert second.prompt.owner_id == "customer 7"
    assert first.prompt.owner_id == third.prompt.owner_id != second.prompt.owner_id  # one owner per request
    assert (first.prompt.kind, second.prompt.kind) == ("chat", "")
    assert first.prompt.text == "Hello  there"


def test_the_layout_is_applied_to_all_but_toxicity_prompts(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "rl_prompts.jsonl": [{"prompt": "a {b} c"}],
            "test_prompts.jsonl": [{"prompt": "t"}],
            "toxicity_prompts.jsonl": [{"prompt": "x"}],
        },
    )
    records = read(folder, layout="Human: {prompt}\n\nAssistant:")
    assert records.rl_prompts[0].text == "Human: a {b} c\n\nAssistant:"
    assert records.test_prompts[0].text == "Human: t\n\nAssistant:"
    assert records.toxicity_prompts[0].text == "x"


def test_rankings_pairs_and_several_annotators(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "p",
            "completions": ["a", "b", "c"],
            "ranks": [2, 1, 2],
            "labeler": "l",
            "models": ["m1", "m2", "m3"],
        },
        {"prompt": "p", "chosen": "a", "rejected": "b", "labeler": "l"},
        {
            "prompt": "p",
            "completion_a": "a",
            "completion_b": "b",
            "model_a": "m1",
            "model_b": "m2",
            "labels": {"x": "a-slightly", "y": "tie", "z": "b"},
        },
    ]
    ranking, pair, *judged = read(write(tmp_path, {"comparisons.jsonl": rows})).comparisons
    assert (ranking.ranks, ranking.source_policy, ranking.labeler_id) == ([2, 1, 2], ["m1", "m2", "m3"], "l")
    assert (pair.completions, pair.ranks) == (["a", "b"], [1, 2])
    assert [(item.labeler_id, item.ranks) for item in judged] == [("x", [1, 2]), ("y", [1, 1]), ("z", [2, 1])]
    assert judged[0].source_policy == ["m1", "m2"]


def test_few_shot_rows_become_siblings_of_one_owner(tmp_path: Path) -> None:
    shots = [{"query": "1 + 1", "response": "2"}, {"query": "2 + 2", "response": "4"}]
    folder = write(tmp_path, {"demonstrations.jsonl": [{"instruction": "Add.", "shots": shots, "labeler": "l1"}]})
    first, second = read(folder).demonstrations
    assert first.prompt.text == "Add.\n\n2 + 2\n4\n\n1 + 1\n"
    assert (first.response, second.response) == ("2", "4")
    assert first.prompt.owner_id == second.prompt.owner_id
    assert first.prompt.owner_id.startswith("labeler:l1:")


def test_excluded_files_are_noted_and_a_file_has_one_role(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "rl_prompts_nc.jsonl": [{"prompt": "no"}],
            "rl_prompts.jsonl": [{"prompt": "yes"}],
            "benchmarks/toxicity_prompts.jsonl": [{"prompt": "bad"}],
        },
    )
    records = read(folder)
    assert [prompt.text for prompt in records.rl_prompts] == ["yes"]
    assert records.notices == ["rl_prompts_nc.jsonl: left alone, data_prep.files.exclude names it"]
    assert len(records.toxicity_prompts) == 1
    assert len(read(folder, exclude=[]).rl_prompts) == 2


def test_blank_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "rl_prompts.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "one"}\n\n{"prompt": "two"}')
    assert [prompt.text for prompt in read(tmp_path).rl_prompts] == ["one", "two"]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("rl_prompts.jsonl", '{"prompt": ', r"rl_prompts\.jsonl:2: found broken JSON \(column \d+: .*correct the line"),
        ("rl_prompts.jsonl", "[1]", "jsonl:2: found a list of 1, expected a JSON object; write one object per line"),
        (
            "rl_prompts.jsonl",
            '{"promt": "x"}',
            "jsonl:2: 'prompt' is missing .found: promt., expected a text; add 'prompt'",
        ),
        (
            "rl_prompts.jsonl",
            '{"prompt": "  "}',
            "jsonl:2: 'prompt' is empty, expected a text; fill it in or remove the row",
        ),
        ("rl_prompts.jsonl", '{"prompt": 3}', "jsonl:2: 'prompt' is a number, expected a text; write it in quotes"),
        ("rl_prompts.jsonl", '{"prompt": "x", "owner_id": 7}', "jsonl:2: 'owner_id' is a number, expected a text"),
        ("rl_prompts.jsonl", '{"prompt": null}', "jsonl:2: 'prompt' is missing or null"),
        ("demonstrations.jsonl", '{"prompt": "x", "response": ""}', "demonstrations.jsonl:2: 'response' is empty"),
        ("demonstrations.jsonl", '{"prompt": "x"}', r"'response' is missing \(found: prompt\)"),
        (
            "demonstrations.jsonl",
            '{"instruction": "x", "shots": [{}]}',
            "'shots' is a list of 1, expected a list of two",
        ),
        (
            "demonstrations.jsonl",
            '{"instruction": "x", "shots": [{"query": "q"}, {"query": "q"}]}',
            r"jsonl:2: shots\[0\]: 'response' is missing",
        ),
        (
            "comparisons.jsonl",
            '{"prompt": "x", "completions": ["a", "b", "c", "d"], "ranks": [1, 2, 3]}',
            "comparisons.jsonl:2: 'ranks' has 3 entries for 4 completions; rank every completion",
        ),
        (
            "comparisons.jsonl",
            '{"prompt": "x", "completions": ["a", "b"], "ranks": [0, 1]}',
            "'ranks' holds 0; the best",
        ),
        (
            "comparisons.jsonl",
            '{"prompt": "x", "completions": ["a", "b"], "ranks": [1, 1.5]}',
            r"'ranks\[1\]' holds 1.5, expected a whole number",
        ),
        (
            "comparisons.jsonl",
            '{"prompt": "x", "completions": ["a"], "ranks": [1]}',
            "'completions' is a list of 1, expected two or more answers",
        ),
        (
            "comparisons.jsonl",
            '{"prompt": "x", "completions": "a", "ranks": [1]}',
            "'completions' is a text, expected a list",
        ),
        (
            "comparisons.jsonl",
            '{"prompt": "x", "chosen": "a"}',
            r"'rejected' is missing \(found: chosen, prompt\), expected a text",
        ),
        ("comparisons.jsonl", '{"prompt": "x"}', r"no responses \(found: prompt\), expected 'chosen' and 'rejected'"),
        (
            "comparisons.jsonl",
            '{"prompt": "x", "completion_a": "a", "completion_b": "b", "labels": {"ann": "c"}}',
            "label of ann is 'c', expected one of a, a-slightly, tie, b-slightly, b; correct",
        ),
        (
            "comparisons.jsonl",
            '{"prompt": "x", "completion_a": "a", "completion_b": "b", "labels": []}',
            "'labels' is a list of 0, expected an object {annotator: label}",
        ),
        ("pretrain.jsonl", '{"txt": "x"}', "pretrain.jsonl:2: 'text' is missing"),
    ],
)
def test_mistakes_in_a_row_are_named_with_file_and_line(tmp_path: Path, file: str, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, {file: ["", line]}))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rl_prompts.jsonl").write_bytes(b'{"prompt": "gr\xfc\xdfe"}')
    with pytest.raises(DataError, match=r"rl_prompts.jsonl:1: found bytes that are not UTF-8 .*convert the file"):
        read(tmp_path)
    (tmp_path / "rl_prompts.jsonl").unlink()
    whole = gzip.compress(b"".join(json.dumps({"prompt": f"{i} x"}).encode() + b"\n" for i in range(999)))
    (tmp_path / "rl_prompts.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"gz:\d+: found unreadable data .*expected a complete gzip file; copy"):
        read(tmp_path)
    (tmp_path / "rl_prompts.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="gz:1: found unreadable data"):
        read(tmp_path)
    (tmp_path / "rl_prompts.jsonl.gz").rename(tmp_path / "rl_prompts.jsonl.bz2")
    with pytest.raises(
        DataError, match=r"bz2: found a file of another kind for rl_prompts, expected \.jsonl, \.jsonl\.gz, .*; convert"
    ):
        read(tmp_path)


def test_missing_folder_and_missing_roles(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_prep.folder: found no folder .*nowhere, expected one with data files"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found no file for demonstrations, expected one matching demonstrations"):
        read(tmp_path, minimum=1)
    with pytest.raises(DataError, match=r"no pattern; add it, or change data_prep\.files\.demonstrations$"):
        read(tmp_path, minimum=1, demonstrations=[])
    assert read(tmp_path).demonstrations == []


def test_a_folder_that_is_called_as_a_file_is_named_where_the_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "demonstrations.jsonl").mkdir()
    said = r"no file for demonstrations \(demonstrations\.jsonl is none, .*\), expected .*move the files of demonstrations\.jsonl"
    with pytest.raises(DataError, match=said):
        read(tmp_path, minimum=1)


def test_evenly_spaced() -> None:
    assert evenly_spaced(list(range(10)), 4) == [0, 2, 5, 7]  # type: ignore[arg-type,comparison-overlap]
    assert evenly_spaced([1, 2], 4) == [1, 2]  # type: ignore[list-item,comparison-overlap]
