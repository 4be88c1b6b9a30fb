"""The comparison as a task: every policy's sheet side by side, as numbers and as a page."""

import json
from collections.abc import Mapping
from pathlib import Path

from tasks.compare.compare import compare_sheets, contests_of
from tasks.compare.config import CompareConfig
from tasks.compare.judges.asked import pair_judges
from tasks.compare.judges.chat import ChatJudge
from tasks.compare.judges.humans import pairs_for_humans, write_pairs
from tasks.compare.report import ReportInputs, write_report
from tasks.compare.rounds import accuracy_in, rounds_figure, rows_of
from tasks.compare.rulings import resampling
from tasks.engine.stage import Metrics, Workshop
from tasks.results.comparison import COMPARISON, REPORT, PolicyComparison
from tasks.results.rounds import FIGURE, ROUNDS
from tasks.results.sheet import BASELINE, REWARD_MODEL, PolicySheet, read_sheet
from tasks.results.verdict import leading_policy

FOR_HUMANS = "pairs_for_humans.jsonl"


def compare_policies(shop: Workshop, config: CompareConfig) -> Metrics:
    """Win rates, alignment tax and safety of every policy against SFT, as numbers and as a page."""
    sheets = {name: read_sheet(shop.input(name)) for name in shop.inputs if not name.endswith("_policy")}
    curves = {
        name.removesuffix("_policy"): json.loads((shop.input(name) / "history.json").read_text(encoding="utf-8"))
        for name in shop.inputs
        if name.endswith("_policy") and (shop.input(name) / "history.json").is_file()
    }
    selected_by = {
        name.removesuffix("_policy"): chosen
        for name in shop.inputs
        if name.endswith("_policy") and (chosen := _selection(shop.input(name))) != "last"
    }
    judges = pair_judges(config.judges, shop.store.root.parent)
    comparison = compare_sheets(sheets, config, judges, selected_by)
    for judge in judges:
        shop.log.metrics(judge.spent())
        notes = [*comparison.notes, *judge.notes(resampling(config))]
        usage = judge.usage if isinstance(judge, ChatJudge) else comparison.chat
        comparison = comparison.model_copy(update={"notes": notes, "chat": usage})
    (shop.folder / COMPARISON).write_text(comparison.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if config.judges.human_pairs:
        _write_pairs_for_humans(shop.folder / FOR_HUMANS, sheets, comparison, config)
        shop.log.file(shop.folder / FOR_HUMANS)
    write_report(
        shop.folder / REPORT,
        ReportInputs(
            comparison=comparison,
            sheets=sheets,
            histories=curves,
            run_config=shop.context.run_config or config.fingerprint_fields(),
            digests=_digests(shop, sheets),
            command=shop.context.command,
        ),
        config,
    )
    shop.log.file(shop.folder / COMPARISON)
    shop.log.file(shop.folder / REPORT)
    return comparison.metrics


def compare_rounds(shop: Workshop, config: CompareConfig) -> Metrics:
    """The run's own policy after every round, against the same baseline, as numbers and as a picture."""
    numbers = sorted(int(name.rpartition("_")[2]) for name in shop.inputs if name.startswith("sheet_"))
    accuracies = {
        number: (
            accuracy_in(shop.input(f"before_{number}")) if f"before_{number}" in shop.inputs else None,
            accuracy_in(shop.input(f"reward_model_{number}")),
        )
        for number in numbers
    }
    sheets = {number: read_sheet(shop.input(f"sheet_{number}")) for number in numbers}
    rounds = rows_of(read_sheet(shop.input(BASELINE)), sheets, accuracies, config)
    (shop.folder / ROUNDS).write_text(rounds.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (shop.folder / FIGURE).write_text(rounds_figure(rounds), encoding="utf-8")
    shop.log.file(shop.folder / ROUNDS)
    shop.log.file(shop.folder / FIGURE)
    metrics: dict[str, float] = {}
    for row in rounds.rows:
        place = f"rounds/{row.number}"
        metrics |= {f"{place}/win_rate_{judge}": win.rate for judge, win in row.win.items()}
        metrics |= {f"{place}/score_{judge}": score for judge, score in row.scores.items()}
        kl = None if row.kl is None else row.kl.estimate
        named = {"kl": kl, "accuracy_before": row.accuracy_before, "accuracy": row.accuracy}
        metrics |= {f"{place}/{name}": value for name, value in named.items() if value is not None}
    return metrics


def _selection(policy: Path) -> str:
    """Who chose a policy's weights: among PPO's iterations the one that its watch names, among SFT's epochs the reward model."""
    watched = policy / "sentinel.json"
    return str(json.loads(watched.read_text(encoding="utf-8"))["selection"]) if watched.is_file() else REWARD_MODEL


def _digests(shop: Workshop, sheets: Mapping[str, PolicySheet]) -> dict[str, str]:
    """Of what the page is made from, and of what the sheets were made from: data, policies, reward models."""
    found = {f"sheet of {name}" if name in sheets else name: ref.digest for name, ref in shop.inputs.items()}
    for name in sheets:
        ref = shop.inputs[name]
        manifest = shop.store.manifest(ref.stage, ref.fingerprint)
        for parent, digest in (manifest.parents if manifest else {}).items():
            found[f"policy {name}" if parent == "policy" else parent] = digest
    return {name: digest for name, digest in found.items() if not name.endswith("_policy")}


def _write_pairs_for_humans(
    path: Path, sheets: Mapping[str, PolicySheet], comparison: PolicyComparison, config: CompareConfig
) -> None:
    """The policy that the verdict is about, at both decodings, against the baseline."""
    policy = leading_policy(comparison.rows)
    pairs = [
        pair
        for item in contests_of(sheets)
        if item.policy == policy and not item.decoding.startswith("best_of_")
        for pair in item.pairs(sheets[BASELINE])
    ]
    write_pairs(path, pairs_for_humans(pairs, config.judges.human_pairs, config.seed))
