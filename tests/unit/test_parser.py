"""A mistake on a command line without Hydra is answered with one sentence, and exit status 2."""

import sys
from pathlib import Path

import pytest

from flows import pages, store
from flows.label import __main__ as label
from flows.parser import Parser, policy_and_tracking

HOUSE = Path(__file__).parents[2]


def answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str) -> str:
    """What the command prints, which is all on one line of the error stream."""
    name, *words = typed.split()
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as ended:
        label.main(words) if name == "label" else {"pages": pages, "store": store}[name].main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    return err.removesuffix("\n")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("pages prefct", "error: page: found 'prefct', expected mlflow or prefect; did you mean prefect?"),
        ("pages", "error: page: found nothing, expected mlflow or prefect; `python -m flows.pages --help` prints what there is"),
        (
            "pages mlflow --prot 4200",
            "error: --prot: unknown option, python -m flows.pages has --help --port; did you mean --port?",
        ),
        ("pages mlflow --port x", "error: --port: found 'x', expected a whole number"),
        ("pages mlflow --port", "error: --port: found nothing behind it, expected a value"),
        ("store lst", "error: command: found 'lst', expected list, verify or gc; did you mean list?"),
        (
            "store gc --delte",
            "error: --delte: unknown option, python -m flows.store gc has --help --delete --keep-run; did you mean --delete?",
        ),
        # another command has it, this one has not
        ("store list --delete", "error: --delete: unknown option, python -m flows.store list has --help"),
        ("store gc --delete=3", "error: --delete: found the value '3', expected none; write --delete alone"),
        (
            "store gc seed=1 --delete seed=2",
            "error: seed=2: found behind all that is expected; write options last, `python -m flows.store gc --help` "
            "prints what there is",
        ),
        (
            "label --names x",
            "error: --names: unknown option, python -m flows.label serve has --help --port --host --name; "
            "did you mean --name?",
        ),
        ("label export potat out", "error: format: found 'potat', expected {formats}; did you mean potato?"),
        (
            "label export",
            "error: format and folder: found nothing, expected {formats}; `python -m flows.label export --help` prints what "
            "there is",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    typed: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    *some, last = sorted(label.FORMATS)
    expected = sentence.format(formats=f"{', '.join(some)} or {last}")
    assert answer(capsys, monkeypatch, typed) == expected


def test_what_argparse_says_otherwise_and_a_command_s_own_words_stay(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="talk")
    parser.add_argument("--system")
    parser.add_argument("--seed", type=float)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--s", "1"])
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--seed", "one"])
    with pytest.raises(SystemExit, match="2"):
        parser.error("which model? model=FOLDER")
    assert capsys.readouterr().err.splitlines() == [
        "error: --s: found the beginning of several options, expected one of --system, --seed; write it in full",
        "error: --seed: found 'one', expected a number",
        "error: which model? model=FOLDER",
    ]


def test_help_is_argparse_s(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pages", "--help"])
    with pytest.raises(SystemExit) as ended:
        pages.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "") and out.startswith("usage: python -m flows.pages [-h]")


def test_overrides_may_follow_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(sys, "argv", ["pages", "mlflow", "--port", "5001", "tracking.folder=here"])
    monkeypatch.setattr(pages, "check_port", asked.append)
    monkeypatch.setattr(pages, "probe", lambda folder: None)
    monkeypatch.setattr(pages, "command", lambda *given: asked.extend(given) or ["server"])
    monkeypatch.setattr(pages, "runs", lambda overrides: asked.append(overrides) or "")
    monkeypatch.setattr("os.execv", lambda *given: None)
    pages.main()
    assert asked == [5001, "mlflow", 5001, ["tracking.folder=here"], ["tracking.folder=here"]]


def test_every_command_line_of_the_project_is_read_so() -> None:
    made = [path for folder in ("flows", "deployments") for path in (HOUSE / folder).rglob("*.py")]
    bare = [path.name for path in made if "ArgumentParser" in path.read_text(encoding="utf-8")]
    assert bare == ["parser.py"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=a", "model=b"], "error: model: found it 2 times, expected it once"),
        (["model=a", "tracking.root=x", "tracking.root=x"], "error: tracking.root: found it 2 times, expected it once"),
        (["model="], "error: which model? model=FOLDER"),
        (["tracking.root=x"], "error: which model? model=FOLDER"),
    ],
)
def test_one_policy_is_named_once(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit) as ended:
        policy_and_tracking(Parser(prog="chat"), words)
    assert ended.value.code == 2 and capsys.readouterr().err.startswith(sentence)


def test_a_policy_and_where_the_runs_are() -> None:
    words = ["tracking.root=/x", "model=models:/plumbline-policy@champion"]
    assert policy_and_tracking(Parser(prog="chat"), words) == (
        "models:/plumbline-policy@champion",
        ["tracking.root=/x"],
    )
