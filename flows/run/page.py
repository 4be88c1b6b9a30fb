"""The report as it is published: the cached comparison, and around it what only this run knows.

The comparison is an artifact, the same bytes for the same inputs. When the run was, what it cost, what the gate decided and how
its training went are set into a copy of it, at places that the comparison leaves as comments.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.config import RLHFConfig
from flows.run.costs import HEADINGS
from flows.run.curves import over_iterations
from flows.run.data_account import account_rows
from flows.run.pipeline import Pipeline
from flows.run.rounds import of_last_round
from flows.run.summary import Outcome, StageRecord, run_link
from flows.tools.tracked import stage_work
from tasks.compare.report import data_uri
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.errors import TrackingAway
from tasks.engine.tracking import open_run
from tasks.results.comparison import REPORT
from tasks.results.decision import GateDecision
from tasks.results.policies import POLICIES
from tasks.results.rounds import FIGURE
from tasks.results.table import markdown_table

PLACES = ("when", "contents", "run")
PAGES = "reports"
"""Folder below the tracking folder that holds the published pages, one folder a run."""


class RunFacts(NamedTuple):
    """What the page shows beside the comparison."""

    when: str
    link: str
    """This run in MLflow."""
    gate: GateDecision
    warnings: Sequence[str]
    data: Sequence[tuple[str, str, str, str]]
    """Role, rows read, rows kept, what took the rest."""
    figures: Sequence[tuple[str, str]]
    """Name and value: labelers and reward models."""
    agreement_is_set: bool
    """The labelers are simulated, and their noise was chosen for the paper's agreement."""
    curves: Mapping[str, str]
    """Title of a PPO run -> its picture."""
    rounds: Sequence[Sequence[str]]
    """Headings and rows of the table over rounds; empty in a run of one round."""
    rounds_picture: str
    """Win rate, KL and accuracy over rounds."""
    cost: Sequence[tuple[str, str, str, str]]
    """Stage, minutes, tokens sampled, device; a stage that was found cost nothing."""
    roads: Sequence[Sequence[str]]
    """What each policy's own stages took, under ``costs.HEADINGS``."""


def published(report: str, facts: RunFacts) -> str:
    """The report with the run's own parts in their places; every text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    checks = [(check.reason, "yes" if check.passed else "no") for check in facts.gate.checks]
    shown = {"facts": facts, "checks": checks, "cost_headings": HEADINGS}
    template = environment.get_template("run.html.jinja").make_module(shown)
    for place in PLACES:
        report = report.replace(f"<!-- plumbline:{place} -->", str(Markup(getattr(template, place)())), 1)
    return report


def publish_page(run: Pipeline, config: RLHFConfig, outcome: Outcome, decision: GateDecision) -> Path:
    """Write the page, put it into the run, and make verdict, table and link the run's description in MLflow."""
    folder = config.tracking.folder / PAGES / run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    link = run_link(config.tracking.mlflow_uri, run.context.experiment_id, run.run_id)
    cached = (Path(outcome.report) / REPORT).read_text(encoding="utf-8")
    (folder / REPORT).write_text(published(cached, facts_of(run, config, outcome, decision, link)), encoding="utf-8")
    log = open_run(run.context.tracking_uri, run.run_id)
    log.file(folder / REPORT)
    log.note(f"{markdown_table(outcome.comparison)}\n\n{decision.sentence}\n\n[The page]({link}/artifacts/{REPORT})\n")
    return folder / REPORT


def facts_of(run: Pipeline, config: RLHFConfig, outcome: Outcome, decision: GateDecision, link: str) -> RunFacts:
    """Gather them from the artifacts of the run and from MLflow."""
    made = {name: run.store.open(future.result()) for name, future in of_last_round(run.futures).items()}
    audit = json.loads((made["data_prep"] / "audit.json").read_text(encoding="utf-8"))
    last = of_last_round({stage: stage for stage in run.futures})
    histories = {name: _history(run, last[name]) for name in config.ppo_runs}
    tokens = tokens_sampled(run.store, {stage: future.result() for stage, future in run.futures.items()})
    return RunFacts(
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        link=link,
        gate=decision,
        warnings=outcome.warnings,
        data=account_rows(audit["rows"]),
        figures=_figures(run, made),
        agreement_is_set=audit["source"] == "sandbox" and config.comparisons.source == "sample_and_label",
        curves={POLICIES[name].title: data_uri(over_iterations(rows)) for name, rows in histories.items()},
        rounds=[rounds.headings, *rounds.cells()] if (rounds := outcome.over_rounds) else [],
        rounds_picture=data_uri((made["rounds"] / FIGURE).read_text(encoding="utf-8")) if "rounds" in made else "",
        cost=cost_of(outcome.stages, _seconds(run), tokens, config.runtime.device),
        roads=outcome.costs,
    )


def tokens_sampled(store: ArtifactStore, made: Mapping[str, ArtifactRef]) -> dict[str, float]:
    """Stage, in every round -> tokens that it drew, where it drew any."""
    manifests = {stage: store.manifest(ref.stage, ref.fingerprint) for stage, ref in made.items()}
    found = {stage: manifest.metrics.get("cost/tokens_drawn") for stage, manifest in manifests.items() if manifest}
    return {stage: tokens for stage, tokens in found.items() if tokens is not None}


def _history(run: Pipeline, stage: str) -> list[dict[str, float]]:
    """The iterations of a PPO stage."""
    folder = run.store.open(run.futures[stage].result())
    history: list[dict[str, float]] = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return history


def _seconds(run: Pipeline) -> dict[str, float] | None:
    """Stage -> how long it was at work; None where MLflow, which knows it, cannot be reached."""
    try:
        work = stage_work(run.context.tracking_uri, run.context.experiment_id, run.run_id)
    except TrackingAway:
        return None
    return {item.stage: item.seconds for item in work}


def cost_of(
    stages: Sequence[StageRecord], seconds: Mapping[str, float] | None, tokens: Mapping[str, float], device: str
) -> list[tuple[str, str, str, str]]:
    """Stage, minutes, tokens sampled and device; minutes are not known where ``seconds`` lacks them."""
    rows = []
    for record in stages:
        if not record.ran:
            rows.append((record.stage, "found in the store", "", ""))
            continue
        took = (seconds or {}).get(record.stage)
        minutes = "not known: MLflow was away" if took is None else f"{took / 60:.1f}"
        sampled = f"{tokens[record.stage]:,.0f}" if record.stage in tokens else ""
        rows.append((record.stage, minutes, sampled, device))
    return rows


TOLD = {
    "valid/accuracy": "accuracy on held-out comparisons",
    "valid/accuracy_heldout_labelers": "accuracy on held-out labelers",
    "valid/accuracy_gold": "accuracy against the gold labeler",
    "valid/ece": "calibration error",
    "questions/ties_score": "score of equally right ones",
    "questions/mean_of_subsets": "mean of subsets",
    "agreement/training_labelers": "training labelers among each other",
    "agreement/heldout_labelers": "held-out labelers among each other",
    "agreement/labelers": "labelers among each other",
    "agreement/training_with_gold": "training labelers with the gold labeler",
}


def _figures(run: Pipeline, made: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for stage, title in (
        ("comparisons", "Agreement of"),
        ("reward_model", "Reward model:"),
        ("reward_model-independent", "Independent reward model:"),
        ("reward_questions", "Reward model, questions with right answers:"),
    ):
        ref = of_last_round(run.futures)[stage].result() if stage in made else None
        manifest = run.store.manifest(ref.stage, ref.fingerprint) if ref else None
        metrics = manifest.metrics if manifest else {}
        found += [(f"{title} {words}", value) for words, value in told(metrics)] + _between_kinds(metrics)
    return found


def told(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """What a stage's metrics say of labelers and reward model, in words and per cent."""
    found = []
    for name, value in metrics.items():
        words, error = TOLD.get(name), metrics.get(f"{name}_standard_error")
        if name.startswith("questions/accuracy_"):
            words = f"highest score in {name.removeprefix('questions/accuracy_').replace('_', ' ')}"
        if words is not None:
            found.append((words, f"{100 * value:.1f}{'' if error is None else f' ± {100 * error:.1f}'} %"))
    return found


def _between_kinds(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Agreement of every two kinds of labelers, with its interval."""
    found = []
    for name, value in metrics.items():
        if name.startswith("agreement/") and f"{name}_low" in metrics:
            first, _, second = name.removeprefix("agreement/").partition("-")
            other = "each other" if first == second else second.replace("_", " ")
            low, high = (100 * metrics[f"{name}_{end}"] for end in ("low", "high"))
            title = f"Agreement of {first.replace('_', ' ')} with {other}"
            found.append((title, f"{100 * value:.1f} [{low:.1f}, {high:.1f}] %"))
    return found
