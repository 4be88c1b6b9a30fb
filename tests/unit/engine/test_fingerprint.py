from pathlib import Path

import pytest

from tasks.engine import fingerprint as module
from tasks.engine.artifacts import ArtifactRef
from tasks.engine.fingerprint import dependencies, fingerprint, imported_modules, source_digests, source_files

REF = ArtifactRef(stage="sft", fingerprint="f", digest="d1")


def made(config: dict[str, object], ref: ArtifactRef = REF) -> str:
    return fingerprint(dependencies("tasks.ppo", config, {"sft": ref}))


def test_fingerprint_follows_config_and_inputs_alone() -> None:
    assert made({"beta": 0.1}) == made({"beta": 0.1})
    assert made({"beta": 0.1}) != made({"beta": 0.2})
    assert made({"beta": 0.1}) != made({"beta": 0.1}, REF.model_copy(update={"digest": "d2"}))
    assert made({"beta": 0.1}) == made({"beta": 0.1}, REF.model_copy(update={"fingerprint": "other path"}))


def test_source_covers_the_stage_and_what_it_imports() -> None:
    names = set(source_files("tasks.ppo"))
    assert {
        "tasks.ppo.loss",
        "tasks.ppo.rewards",
        "tasks.language.masked",
        "tasks.language.generation",
        "tasks.language.models",
    } <= names
    assert not any(name.startswith(("tasks.sft", "tasks.measure")) for name in names)
    assert {"tasks.ppo.task", "tasks.records.data"} <= names
    assert not {"tasks.engine.tracking", "tasks.engine.caching", "tasks.engine.stage"} & names


def test_source_covers_nested_packages_and_templates() -> None:
    assert any("sources" in name for name in source_files("tasks.data_prep"))
    assert any(name.endswith(".jinja") for name in source_files("tasks.compare"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stage = tmp_path / "tasks" / "toy"
    stage.mkdir(parents=True)
    for folder in (tmp_path / "tasks", stage):
        (folder / "__init__.py").write_text("")
    (stage / "train.py").write_text("from tasks import shared\n\ndef f():\n    return shared.X\n")
    (stage / "other.py").write_text("from tasks.toy import train\nV = train.f\n")
    (tmp_path / "tasks" / "shared.py").write_text("from tasks.deep import Y\nX = 1\n")
    (tmp_path / "tasks" / "deep.py").write_text("Y = 2\n")
    (tmp_path / "tasks" / "unrelated.py").write_text("Z = 3\n")
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("toy/train.py", "from tasks import shared\n\ndef f():\n    return shared.X + 1\n", True),
        ("shared.py", "from tasks.deep import Y\nX = 5\n", True),
        ("deep.py", "Y = 7\n", True),
        ("unrelated.py", "Z = 9\n", False),
        ("deep.py", '"""New words."""\n\nY = 2  # a comment\n', False),
        ("stage.py", "print('edge')\n", False),
        ("toy/task.py", "print('new')\n", True),
        ("toy/new.py", "W = 1\n", True),
        ("toy/__init__.py", "title = 'declared'\n", False),
    ],
)
def test_which_edits_change_the_source(project: Path, file: str, text: str, changes: bool) -> None:
    source_digests.cache_clear()
    before = source_digests("tasks.toy")
    (project / "tasks" / file).write_text(text)
    source_digests.cache_clear()
    assert (source_digests("tasks.toy") != before) == changes
    source_digests.cache_clear()


def test_imports_inside_functions_count(project: Path) -> None:
    path = project / "tasks" / "toy" / "late.py"
    path.write_text("def f():\n    from tasks.unrelated import Z\n    return Z\n")
    assert "tasks.unrelated" in imported_modules(path)
