"""One self-contained page: verdict, table, figures, responses side by side, configuration.

Models write part of this page, so every text is escaped by the template engine.
"""

import base64
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.evaluation import plots
from tasks.evaluation.comparison import PolicyComparison, title_of
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.sheet import OPPONENT, PolicySheet, Response
from tasks.evaluation.table import BEHAVIOUR, PREFERENCE, Cell, policy_table
from tasks.evaluation.verdict import JUDGE_TITLES, points
from tasks.evaluation.win_rate import derived_seed


class ReportInputs(NamedTuple):
    """Everything the page shows."""

    comparison: PolicyComparison
    sheets: Mapping[str, PolicySheet]
    histories: Mapping[str, plots.History]
    """Each PPO run's metrics, one dict an iteration with ``step``, ``kl`` and ``score``."""
    run_config: Mapping[str, Any]
    """Configuration as plain JSON types."""
    digests: Mapping[str, str]
    """Name to SHA-256 of the artifacts that the figures come from."""


def write_report(path: Path, inputs: ReportInputs, config: EvaluationConfig) -> None:
    """Write the page to ``path``; the same inputs give the same bytes."""
    path.write_text(render_report(inputs, config), encoding="utf-8")


def render_report(inputs: ReportInputs, config: EvaluationConfig) -> str:
    """The page as HTML text."""
    comparison, sheets, histories, run_config, digests = inputs
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    task_policies, task_table = _tasks(comparison)
    return environment.get_template("report.html.jinja").render(
        title="Plumbline: how the policies compare",
        comparison=comparison,
        prompts=len(next(iter(sheets.values())).samples),
        preference=policy_table(comparison, PREFERENCE),
        behaviour=policy_table(comparison, BEHAVIOUR),
        figures={
            "wins": _data_uri(plots.win_rate_bars(comparison)),
            "frontier": _data_uri(plots.reward_against_kl(comparison, histories)),
            "tax": _data_uri(plots.benchmark_changes(comparison)),
        },
        task_policies=task_policies,
        task_table=task_table,
        samples=_samples(sheets, config),
        config_seed=config.seed,
        digests=digests,
        config_text=json.dumps(run_config, indent=2, ensure_ascii=False),
        metrics_text="\n".join(f"{name} = {value:.6g}" for name, value in sorted(comparison.metrics.items())),
    )


def _data_uri(svg: str | None) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode() if svg else ""


def _tasks(comparison: PolicyComparison) -> tuple[list[str], list[dict[str, Any]]]:
    policies = list(dict.fromkeys(change.policy for change in comparison.tasks))
    found = {(change.task, change.policy): change for change in comparison.tasks}
    table = []
    for task in dict.fromkeys(change.task for change in comparison.tasks):
        changes = [found[task, policy] for policy in policies]
        cells = [
            Cell(
                f"{100 * change.accuracy:.1f}",
                points(change.change_vs_base) if change.change_vs_base and change.policy != "base" else "",
            )
            for change in changes
        ]
        table.append({"name": task, "item_count": changes[0].items, "cells": cells})
    return [title_of(policy) for policy in policies], table


def _samples(sheets: Mapping[str, PolicySheet], config: EvaluationConfig) -> list[dict[str, Any]]:
    """Prompts drawn by seed, each with every policy's responses in the order of the table."""
    total = len(next(iter(sheets.values())).samples)
    count = min(config.samples_in_report, total)
    drawn = random.Random(derived_seed(config.seed, "samples in report")).sample(range(total), count)
    shown = []
    for index in drawn:
        row = next(iter(sheets.values())).samples[index]
        answers = [
            _answer(title_of(name, decoding, config.temperature), response)
            for name, sheet in sheets.items()
            for decoding, response in sheet.samples[index].responses.items()
            if decoding != OPPONENT
        ]
        tag = ", ".join(part for part in (row.kind, "held-out entity" if row.held_out else "") if part)
        shown.append({"prompt": row.prompt, "tag": tag, "answers": answers})
    return shown


def _answer(title: str, response: Response) -> dict[str, str]:
    scores = [f"{JUDGE_TITLES[judge]} {response.scores[judge]:.2f}" for judge in sorted(response.scores)]
    ended = "" if response.finished else "did not end"
    return {
        "title": title,
        "text": response.text or "(empty)",
        "scores": " · ".join(part for part in (*scores, f"{response.tokens} tokens", ended) if part),
    }
