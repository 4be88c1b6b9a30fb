"""README and docs/: links lead somewhere, cited choices exist, and every command line is composed here or has its reason."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.config import composed, load
from flows.evaluate_config import parse_evaluate
from flows.plumbline import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = {"<MLflow run id>": "0" * 32, "chat.model=NAME": "chat.model=name"}
ELSEWHERE = {
    r"make (demo|setup|clean)$": "make demo is the command below it, python -m flows.rlhf, after pip; it takes minutes",
    r"make (test|lint|test-slow)": "runs these tests",
    r"python -m tests\.benchmarks\.(rows|profile|our_side)": "tests/benchmarks/test_bench.py",
    r"python -m tests\.benchmarks\.signals": "tests/benchmarks/test_signals.py",
    r"make (bench|bench-gpu)": "measures; prints ratios, asserts nothing",
    r"python -m pytest -m slow tests/integration/test_crowd\.py": "is itself a test",
    r"python -m flows\.layouts$": "tests/unit/test_layouts.py",
    r"python -m flows\.study": "tests/integration/test_study.py runs it in miniature",
    r"python -m flows\.store (list|verify|gc)": "tests/integration/test_store.py",
    r"python -m flows\.label": "tests/unit/label/test_command.py, tests/browser/test_label_page.py",
    r"python -m flows\.serve model=": "tests/unit/serve/test_serve.py",
    r"python -m flows\.pages (prefect|mlflow)( --port 5001)?$": "tests/browser/test_pages.py",
    r"python -m flows\.agreement pairs\.jsonl --judge longer\|chat": "tests/integration/test_judges.py",
    r"python -m flows\.debate (run|pairs)=": "tests/unit/debate/test_debate.py",
    r"python -m flows\.chat (model=|--help)": "tests/unit/test_chat.py",
    r"python -m deployments\.render": "tests/integration/test_deployment.py",
    r"python -m deployments\.serve": "tests/integration/test_deployment.py, tests/unit/test_deployments.py",
    r"python -m deployments\.automations": "tests/integration/test_automations.py",
    r"export AWS_": "tests/unit/engine/test_shared.py is told by the environment likewise",
    r"export PREFECT_|prefect |PREFECT_": "tests/integration/test_deployment.py runs a server, deploys and starts a worker",
    r"PLUMBLINE_DB_PASSWORD=\.\.\. docker compose": "needs Docker; tests/unit/test_deployments.py parses the file",
    r"pip install": "installs packages; .ci/run does it",
    r"plumbline ": "tests/unit/test_plumbline_command.py",
    r"source \.venv/bin/activate": "a shell's own command",
    r"pre-commit install": "a tool of its own",
}


def lines_of(page: Path) -> Iterator[str]:
    """Every command line of a page, in fences and in running text."""
    text = page.read_text()
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.S | re.M):
        yield from (re.sub(r"\s+#\s.*| &$", "", line).strip() for line in block.splitlines())
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    yield from (" ".join(line.split()) for line in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose))


COMMAND_LINES = sorted(
    {
        (page.relative_to(ROOT).as_posix(), line)
        for page in PAGES
        for line in lines_of(page)
        if re.match(r"(python -m|make|prefect|pip|plumbline|export|docker|pre-commit|source) |PLUMBLINE_\w+=\S+ ", line)
    }
)


def overrides(line: str) -> list[str]:
    """The overrides of a pipeline's command line; of a sweep, its first point."""
    for placeholder, value in PLACEHOLDERS.items():
        line = line.replace(placeholder, value)
    words = [word for word in shlex.split(line)[3:] if not word.startswith("-") and word != "job"]
    if "-m" in shlex.split(line)[3:]:
        words = [re.sub(r"=([^,\[]*),.*", r"=\1", word) for word in words if not word.startswith(("hydra", "search"))]
    return [word for word in words if word != "..."]


@pytest.mark.parametrize(("page", "line"), COMMAND_LINES)
def test_every_command_line_composes_or_is_run_elsewhere(page: str, line: str) -> None:
    if re.match(r"python -m flows\.(rlhf|doctor)\b", line):
        assert load(overrides(line))
    elif re.match(r"python -m flows\.evaluate\b", line):
        assert parse_evaluate(composed(overrides(line), "evaluate"))
    else:
        reasons = [reason for pattern, reason in ELSEWHERE.items() if re.match(pattern, line)]
        assert reasons, f"{page}: {line}: neither composed here nor listed in ELSEWHERE"
        files = re.findall(r"tests/[\w/]+\.py", reasons[0])
        if module := re.match(r"python -m (\w+)\.(\w+)", line):
            where = rf"{module[1]}(\.| import |/){module[2]}\b"
            assert any(re.search(where, (ROOT / file).read_text()) for file in files), f"{line}: not in {files}"
        assert all((ROOT / file).is_file() for file in files)


def test_every_command_is_documented_and_every_documented_module_exists() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for name in COMMANDS:
        assert f"python -m flows.{name}" in text
    for package, name in re.findall(r"python -m (flows|deployments)\.(\w+)", text):
        folder = ROOT / package
        assert (folder / f"{name}.py").is_file() or (folder / name / "__main__.py").is_file(), name


def slugs(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in slugs(file), f"{page.name}: {target}"


def test_every_page_is_linked_and_every_picture_is_shown() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "pictures").iterdir()]:
        assert re.search(rf"\]\((docs/)?(pictures/)?{re.escape(path.name)}(#[\w-]+)?\)", text), path.name


def test_choices_that_the_code_cites_are_on_the_page() -> None:
    written = set(re.findall(r"^- \*\*([A-Z]\.\d+) ", (ROOT / "docs" / "method.md").read_text(), flags=re.M))
    cited: dict[str, str] = {}
    for folder in ("flows", "tasks", "conf"):
        for path in sorted((ROOT / folder).rglob("*.*")):
            if path.suffix in (".py", ".yaml"):
                text = path.read_text()
                cited |= dict.fromkeys(re.findall(r"docs/method\.md ([A-Z]\.\d+)", text), path.name)
                assert not re.search(r"\bspec [A-Z]\.\d", text), f"{path.name} cites a page that is not in the project"
    assert len(cited) >= 8
    assert set(cited) <= written, {letter: path for letter, path in cited.items() if letter not in written}


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert 100 <= len(lines) <= 150
    assert max(map(len, lines)) <= 150
