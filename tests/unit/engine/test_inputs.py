import os
from pathlib import Path

import pytest

from tasks.data_prep.sources.folder import choose_files
from tasks.engine.config import ModelConfig
from tasks.engine.errors import DataError
from tasks.engine.inputs import files_below, folder_fields, model_fields, path_fields
from tests.unit.data_prep.samples import own_data


def fill(folder: Path, text: str = "a") -> Path:
    folder.mkdir()
    (folder / "rows.jsonl").write_text(text)
    return folder


def test_a_folder_counts_by_content_not_by_place(tmp_path: Path) -> None:
    assert folder_fields(str(fill(tmp_path / "one"))) == folder_fields(str(fill(tmp_path / "two")))
    assert folder_fields(str(tmp_path / "one")) != folder_fields(str(fill(tmp_path / "three", "b")))
    assert folder_fields(str(tmp_path / "missing")) == {}


def test_one_changed_byte_is_seen_although_the_size_stays(tmp_path: Path) -> None:
    folder = fill(tmp_path / "one")
    before = folder_fields(str(folder))
    (folder / "rows.jsonl").write_text("b")
    os.utime(folder / "rows.jsonl", ns=(1, 1))
    assert folder_fields(str(folder)) != before


def test_a_single_file_counts_by_content(tmp_path: Path) -> None:
    folder = fill(tmp_path / "one")
    assert path_fields(str(folder / "rows.jsonl")) == folder_fields(str(folder))


def test_a_model_is_its_bytes_or_its_name_on_a_hub(tmp_path: Path) -> None:
    given = {"revision": None, "context_tokens": 8, "architecture": None, "tokenizer": None}
    local = ModelConfig(name_or_path=str(fill(tmp_path / "one")), **given)
    moved = ModelConfig(name_or_path=str(fill(tmp_path / "two")), **given)
    assert model_fields(local) == model_fields(moved)
    assert model_fields(ModelConfig(name_or_path="org/name", **given))["name_or_path"] == "org/name"


def test_a_linked_folder_is_in_the_key_as_what_it_links_to(tmp_path: Path) -> None:
    far = fill(tmp_path / "far")
    near = fill(tmp_path / "near")
    (near / "sft").symlink_to(far)
    (near / "one.jsonl").symlink_to(far / "rows.jsonl")
    before = folder_fields(str(near))
    assert set(before) == {"rows.jsonl", "sft/rows.jsonl", "one.jsonl"}
    (far / "rows.jsonl").write_text("more")
    after = folder_fields(str(near))
    assert {name for name in before if before[name] != after[name]} == {"sft/rows.jsonl", "one.jsonl"}
    assert after == folder_fields(str(near / ".." / "near"))


def test_a_file_that_takes_the_place_of_another_is_seen(tmp_path: Path) -> None:
    """A link that is turned to another file of equal size and age."""
    near = fill(tmp_path / "near")
    for name, text in (("first", "aa"), ("second", "bb")):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, ns=(1, 1))
    (near / "link").symlink_to(tmp_path / "first")
    before = folder_fields(str(near))
    (near / "link").unlink()
    (near / "link").symlink_to(tmp_path / "second")
    assert folder_fields(str(near)) != before


def test_links_that_lead_back_or_nowhere_end_the_walk(tmp_path: Path) -> None:
    near = fill(tmp_path / "near")
    (near / "again").symlink_to(near)
    (near / "below").mkdir()
    (near / "below" / "up").symlink_to("..")
    (near / "lost").symlink_to(tmp_path / "nothing")
    before = folder_fields(str(near))
    assert set(before) == {"rows.jsonl", "lost"}
    (tmp_path / "nothing").write_text("something")
    assert folder_fields(str(near)) != before


def test_what_the_reader_reads_is_in_the_key(tmp_path: Path) -> None:
    """Every pattern of every role, over real, linked, nested and hidden files."""
    far = fill(tmp_path / "far")
    near = fill(tmp_path / "near")
    for name in ("sft", "benchmarks", ".hidden"):
        (near / name).symlink_to(far)
    (near / "deep" / "er").mkdir(parents=True)
    (near / "deep" / "er" / "rl_prompts.jsonl").write_text("")
    files = own_data(near, files={"demonstrations": ["sft/*", "**/rl_prompts*", ".hidden/*.jsonl"]}).files
    assert files is not None
    read = {name for found in choose_files(near, files, []).values() for name in found}
    assert read == {"sft/rows.jsonl", "benchmarks/rows.jsonl", ".hidden/rows.jsonl", "deep/er/rl_prompts.jsonl"}
    assert read <= set(folder_fields(str(near)))
    assert set(files_below(near)) == set(folder_fields(str(near)))


def test_a_name_that_nobody_can_print_is_refused(tmp_path: Path) -> None:
    near = fill(tmp_path / "near")
    (near / os.fsdecode(b"r\xf6ws.jsonl")).write_text("")
    with pytest.raises(DataError, match=r"near: found the file name b'r\\xf6ws\.jsonl', which is not UTF-8; rename it"):
        folder_fields(str(near))


@pytest.mark.parametrize("pattern", ["../far/*.jsonl", "/etc/*.jsonl"])
def test_a_pattern_that_leaves_the_folder_is_refused(tmp_path: Path, pattern: str) -> None:
    near = fill(tmp_path / "near")
    files = own_data(near, files={"demonstrations": [pattern]}).files
    assert files is not None
    with pytest.raises(
        DataError, match=r"data_prep\.files\.demonstrations: found the pattern .*which leaves the folder"
    ):
        choose_files(near, files, [])
