"""The study's page, as Markdown and as one self-contained HTML file, in the order of a paper's results section."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows.study.brake_findings import brake
from flows.study.config import StudyConfig
from flows.study.figures import draw
from flows.study.optimisation_findings import over_optimisation_best_of_n, over_optimisation_ppo
from flows.study.points import Point, policy_setting
from flows.study.policy_findings import alignment_tax, beta_with_ptx, beta_without_ptx, single_choices
from flows.study.records import PointRecord, Session, write_text
from flows.study.results import Results, StudyFinding
from flows.study.reward_findings import batch_element, data_and_labelers, sft_epochs
from flows.study.road_findings import rival_roads
from flows.study.spread import spread_of

HTML, MARKDOWN, FIGURES = "study.html", "study.md", "figures"
TITLE = "The findings of InstructGPT on the embedded world"


class Written(NamedTuple):
    """What was written, and what it says."""

    files: list[Path]
    findings: list[StudyFinding]


def findings_of(results: Results) -> list[StudyFinding]:
    """Every finding that the grid asks for."""
    grid, reference = results.config.grid, results.config.reference
    wanted: list[tuple[object, Callable[[Results], StudyFinding]]] = [
        (grid.gammas, alignment_tax),
        # which asks what a larger beta does; the next finding needs only a small one
        ([beta for beta in grid.betas_without_ptx if beta > reference.beta], beta_without_ptx),
        (grid.betas_with_ptx, beta_with_ptx),
        (grid.betas_without_ptx, over_optimisation_ppo),
        (grid.gammas, over_optimisation_best_of_n),
        (grid.pair_prompts, batch_element),
        (grid.comparison_prompts, data_and_labelers),
        (grid.sft_epochs, sft_epochs),
        (grid.ablations, single_choices),
        (grid.roads, rival_roads),
        (grid.brakes, brake),
    ]
    return [find(results) for asked, find in wanted if asked]


def write_page(
    folder: Path,
    results: Results,
    points: Sequence[Point],
    records: Sequence[PointRecord],
    sessions: Sequence[Session],
    command: str,
) -> Written:
    """Write page and figures below ``folder``; the same numbers give the same bytes."""
    findings = findings_of(results)
    figures = {finding.key: draw(finding.panels, results.config.rules.confidence) for finding in findings}
    drawn = {key: svg for key, svg in figures.items() if svg is not None}
    for key, svg in drawn.items():
        write_text(folder / FIGURES / f"{key}.svg", svg)
    values = {
        "title": TITLE,
        "findings": findings,
        "config": results.config,
        "command": command,
        "spread": spread_of(results, policy_setting(results.config.reference.beta, results.config.reference.gamma)),
        "cost": cost(points, records, sessions, results.config),
    }
    html = {key: "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode() for key, svg in drawn.items()}
    write_text(folder / HTML, _render("study.html.jinja", values, html))
    write_text(folder / MARKDOWN, _render("study.md.jinja", values, {key: f"{FIGURES}/{key}.svg" for key in drawn}))
    names = [HTML, MARKDOWN, *(f"{FIGURES}/{key}.svg" for key in drawn)]
    return Written([folder / name for name in names], findings)


def cost(
    points: Sequence[Point], records: Sequence[PointRecord], sessions: Sequence[Session], config: StudyConfig
) -> str:
    """How much was run, and how long it took, in one sentence; measured."""
    done = sum(record.error is None for record in records)
    text = f"{done} of {len(points)} points measured with seeds {', '.join(map(str, config.seeds))}"
    if not sessions:
        return text + "."
    wall, busy = sum(item.seconds for item in sessions) / 60, sum(record.seconds for record in records) / 60
    calls = "one call" if len(sessions) == 1 else f"{len(sessions)} calls"
    workers = " and ".join(str(count) for count in sorted({item.workers for item in sessions}))
    return f"{text}, in {wall:.1f} minutes of wall time with {workers} workers ({calls}; {busy:.1f} minutes inside the points)."


def _render(template: str, values: dict[str, object], figures: dict[str, str]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith("html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    return environment.get_template(template).render(**values, figures=figures)
