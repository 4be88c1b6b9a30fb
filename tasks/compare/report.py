"""One self-contained page: verdict, table, figures, responses side by side, configuration.

Models write part of this page, so every text is escaped by the template engine.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.compare import plots
from tasks.compare.config import CompareConfig
from tasks.language.seeds import named_random
from tasks.results.comparison import PolicyComparison, title_of
from tasks.results.judges import JUDGES
from tasks.results.policies import POLICIES, names_of
from tasks.results.sheet import BASELINE, GREEDY, OPPONENT, SAMPLED, PolicySheet, PromptSamples, Response
from tasks.results.table import (
    BEHAVIOUR,
    PREFERENCE,
    Cell,
    judge_table,
    kind_table,
    policy_table,
    safety_table,
)
from tasks.results.verdict import deciding_judge, leading_policy, points

EXTREMES = 2
"""Prompts shown at either end."""


class ReportInputs(NamedTuple):
    """Everything the page shows."""

    comparison: PolicyComparison
    sheets: Mapping[str, PolicySheet]
    histories: Mapping[str, plots.History]
    """Each PPO run's metrics, one dict an iteration."""
    run_config: Mapping[str, Any]
    """Configuration as plain JSON types."""
    digests: Mapping[str, str]
    """Name to SHA-256 of the artifacts that the figures come from."""
    command: str
    """What makes the run again; empty when it is not known."""


def write_report(path: Path, inputs: ReportInputs, config: CompareConfig) -> None:
    """Write the page to ``path``; the same inputs give the same bytes."""
    path.write_text(render_report(inputs, config), encoding="utf-8")


def render_report(inputs: ReportInputs, config: CompareConfig) -> str:
    """The page as HTML text."""
    comparison, sheets, histories, run_config, digests, command = inputs
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    task_policies, task_table = _tasks(comparison)
    frontier, tax = plots.reward_against_kl(comparison, histories), plots.benchmark_changes(comparison)
    behaviour, safety = policy_table(comparison, BEHAVIOUR), safety_table(comparison)
    samples = _samples(sheets, config)
    sections = (
        ("preference", "Preference", True),
        ("behaviour", "Behaviour", behaviour.rows),
        ("tax", "Alignment tax", tax),
        ("safety", "Safety", safety.rows),
        ("frontier", "Reward against KL", frontier),
        ("length", "Length", True),
        ("responses", "Responses", samples),
    )
    return environment.get_template("report.html.jinja").render(
        title="Plumbline: how the policies compare",
        comparison=comparison,
        prompts=len(next(iter(sheets.values())).samples),
        preference=policy_table(comparison, PREFERENCE),
        contents=[(place, name) for place, name, there in sections if there],
        behaviour=behaviour,
        judges=judge_table(comparison),
        kinds=kind_table(comparison),
        deciding=JUDGES[deciding_judge(comparison.rows, comparison.judges)].title,
        safety=safety,
        figures={
            "wins": data_uri(plots.win_rate_bars(comparison)),
            "frontier": data_uri(frontier),
            "tax": data_uri(tax),
            "lengths": data_uri(plots.length_histogram(sheets)),
        },
        task_policies=task_policies,
        task_table=task_table,
        samples=samples,
        extremes=_extremes(comparison, sheets, config),
        config_seed=config.seed,
        digests=digests,
        command=command,
        config_text=json.dumps(run_config, indent=2, ensure_ascii=False),
        metrics_text="\n".join(f"{name} = {value:.6g}" for name, value in sorted(comparison.metrics.items())),
    )


def data_uri(svg: str | None) -> str:
    """A picture as the page holds it; nothing for none."""
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
                "; ".join(
                    f"{points(interval)} vs {title_of(other)}"
                    for other, interval in (("base", change.change_vs_base), ("sft", change.change_vs_sft))
                    if interval is not None
                ),
            )
            for change in changes
        ]
        table.append({"name": task, "item_count": changes[0].items, "cells": cells})
    return [title_of(policy) for policy in policies], table


def _samples(sheets: Mapping[str, PolicySheet], config: CompareConfig) -> list[dict[str, Any]]:
    """Prompts drawn by seed, each with every policy's responses in the order of the table."""
    total = len(next(iter(sheets.values())).samples)
    count = min(config.samples_in_report, total)
    drawn = named_random(config.seed, "samples in report").sample(range(total), count)
    return [_sample(index, sheets, config, "") for index in drawn]


def _extremes(
    comparison: PolicyComparison, sheets: Mapping[str, PolicySheet], config: CompareConfig
) -> list[dict[str, Any]]:
    """The prompts on which the leading policy gains and loses most against its opponent, by the deciding judge's score."""
    policy = leading_policy(comparison.rows)
    judge = deciding_judge(comparison.rows, comparison.judges)
    scorer = judge if judge in comparison.rows[0].scores else next(iter(comparison.rows[0].scores))
    if policy == "sft" or not config.samples_in_report:
        return []
    mine, theirs = sheets[policy].responses(SAMPLED), sheets["sft"].responses(OPPONENT)
    gaps = [a.scores[scorer] - b.scores[scorer] for a, b in zip(mine, theirs, strict=True)]
    order = sorted(range(len(gaps)), key=gaps.__getitem__)
    best = [index for index in order[::-1][:EXTREMES] if gaps[index] > 0]
    worst = [index for index in order[:EXTREMES] if gaps[index] < 0]
    return [
        _sample(
            index, sheets, config, f"{what}: {gaps[index]:+.2f} points of the {JUDGES[scorer].title}", opponent=True
        )
        for what, indices in ((f"best for {title_of(policy)}", best), (f"worst for {title_of(policy)}", worst))
        for index in indices
    ]


def _sample(
    index: int, sheets: Mapping[str, PolicySheet], config: CompareConfig, note: str, *, opponent: bool = False
) -> dict[str, Any]:
    """One prompt, one column each for base, SFT and what was trained; the opponent's sample is shown where it explains a gap."""
    row: PromptSamples = next(iter(sheets.values())).samples[index]
    shown = [name for name in ("base", BASELINE, *names_of("own", "rival")) if name in sheets]
    shown += [name for name in sheets if name not in POLICIES]
    answers = {
        (name, decoding): _answer(
            title_of(name, decoding, sheet.temperature) + (" (opponent)" if decoding == OPPONENT else ""), response
        )
        for name, sheet in sheets.items()
        for decoding, response in sheet.samples[index].responses.items()
        if opponent or decoding != OPPONENT
    }
    first = {key for key in answers if key[0] in shown and key[1] in (SAMPLED, GREEDY)}
    first |= {key for key in answers if key[1] == OPPONENT and key[0] == BASELINE}
    columns = [
        {
            "title": title_of(name),
            "answers": [answer for key, answer in answers.items() if key in first and key[0] == name],
        }
        for name in shown
    ]
    marks = (
        note,
        row.kind,
        "held-out entity" if row.held_out else "",
        "repeats a training request" if row.repeats else "",
    )
    others = [answer for key, answer in answers.items() if key not in first]
    return {"prompt": row.prompt, "tag": ", ".join(filter(None, marks)), "columns": columns, "others": others}


def _answer(title: str, response: Response) -> dict[str, str]:
    scores = [f"{JUDGES[judge].title} {response.scores[judge]:.2f}" for judge in JUDGES if judge in response.scores]
    ended = "" if response.finished else "did not end"
    return {
        "title": title,
        "text": response.text or "(empty)",
        "scores": " · ".join(
            part for part in (*scores, f"{response.tokens} token{'s' * (response.tokens != 1)}", ended) if part
        ),
    }
