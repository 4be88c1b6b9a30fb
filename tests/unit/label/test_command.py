"""The command line of the labelling page."""

from pathlib import Path

import pytest

from flows.label import __main__ as command
from flows.label.app import create_app
from flows.label.tokens import Labelers
from flows.process import environment
from tasks.engine.inputs import folder_fields
from tasks.records.labels import read_labels
from tests.unit.label.batches import written
from tests.unit.label.test_page import Person, answers


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "HOME", tmp_path)
    return tmp_path


def test_a_link_opens_the_page_for_its_labeler(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["add", "ann", "--url", "https://labels.example/"])
    link = capsys.readouterr().out.strip()
    assert link.startswith("https://labels.example/enter?token=")
    assert Labelers(home).find(link.partition("=")[2]) == "ann"
    with pytest.raises(SystemExit, match="error: labeler 'ann' has a token already"):
        command.main(["add", "ann"])
    command.main(["remove", "ann"])
    assert Labelers(home).names() == []


def test_files_go_there_and_back(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"error: found 0 batches \(none\); name one with --batch"):
        command.main(["export", "potato", str(home / "out")])
    batch = written(home)
    command.main(["export", "label_studio", str(home / "out")])
    assert capsys.readouterr().out.split() == [str(home / "out" / "tasks.json"), str(home / "out" / "config.xml")]
    line = '{"user_id": "zoe", "id": "salt", "label_annotations": {"ranking": {"rank_order": "B,D=A,C"}}}'
    (home / "potato.jsonl").write_text(line)
    command.main(["import", "potato", str(home / "potato.jsonl"), "--batch", "first"])
    assert capsys.readouterr().out == "1 labels added, 0 were there already\n"
    assert [label.labeler for label in read_labels(batch)] == ["zoe"]
    with pytest.raises(SystemExit, match=r"found no batch\.json with items\.jsonl"):
        command.main(["import", "potato", str(home / "potato.jsonl"), "--batch", "second"])


def test_the_list_tells_how_far_each_batch_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["list"])
    assert "no batch in" in capsys.readouterr().out
    written(home)
    Labelers(home).add("ann")
    command.main(["list"])
    assert capsys.readouterr().out == "batch first: 3 items, 0 of 3 answers\nlabelers: ann\n"


def test_a_closed_batch_takes_no_more_labels(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch, app = written(home), create_app(home)
    ann = Person(home, "ann", app)
    address = ann.next()
    form = ann.form(address)
    before = folder_fields(str(batch.folder / "labels"))
    command.main(["close", "first"])
    assert "batch first: 3 items, 0 of 3 answers, closed" in capsys.readouterr().out
    assert folder_fields(str(batch.folder / "labels")) == before  # what a run's cache key knows of
    for reply in (ann.http.get(address), ann.http.post(address, data=form | answers([1, 2, 3, 4]))):
        assert reply.status_code == 404 and "is closed: it needs no more labels" in reply.text
    assert "There is nothing to label yet" in ann.http.get("/").text
    (home / "potato.jsonl").write_text("{}")
    with pytest.raises(SystemExit, match=r"batch first is closed; python -m flows\.label open first opens it"):
        command.main(["import", "potato", str(home / "potato.jsonl")])
    with pytest.raises(SystemExit, match=r"found no batch\.json with items\.jsonl"):
        command.main(["close", "second"])
    command.main(["open", "first"])
    assert ann.http.post(address, data=form | answers([1, 2, 3, 4])).status_code == 303
    assert len(read_labels(batch)) == 1


def test_the_network_sees_the_page_only_under_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, object]] = []
    monkeypatch.setattr(command.uvicorn, "run", lambda app, **how: served.append(how))
    monkeypatch.setattr(command, "check_port", lambda port: None)
    with pytest.raises(SystemExit, match=r"--host 0\.0\.0\.0: found no --name"):
        command.main(["--host", "0.0.0.0"])
    command.main([])
    command.main(["serve", "--host", "0.0.0.0", "--name", "labels.example", "--port", "4301"])
    assert [(how["host"], how["port"]) for how in served] == [("127.0.0.1", 4300), ("0.0.0.0", 4301)]
