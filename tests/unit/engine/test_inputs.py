import os
from pathlib import Path

from tasks.engine.config import ModelConfig
from tasks.engine.inputs import folder_fields, model_fields, path_fields


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
