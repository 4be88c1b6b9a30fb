"""All policies of a run side by side: one row for each way of answering, each set against SFT at the same decoding.

A win rate at temperature 1 mostly measures how sharp a policy has become, which greedy decoding gives SFT for free. So
three kinds of row stand together: sampled policies against a second, independent SFT sample (SFT itself must come out
near 50 %); SFT greedy against that same sample, the sharpening control; and greedy policies against SFT greedy.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.compare.config import CompareConfig
from tasks.compare.regression import (
    macro_change,
    macro_mean,
    paired_change,
    perplexity_ratio,
    task_change,
    task_score,
)
from tasks.compare.rulings import Contest, contest, judges_of, resampling, rule
from tasks.compare.start import against_start, against_yardstick
from tasks.engine.errors import DataError
from tasks.results import verdict
from tasks.results.best_of_n import best_of_n_kl
from tasks.results.comparison import (
    PolicyComparison,
    PolicyRow,
    Ruling,
    TaskChange,
    TruthShares,
    title_of,
)
from tasks.results.judge import PairJudge
from tasks.results.judges import JUDGES
from tasks.results.safety_figure import SafetyFigure, check_comparable, safety_figures
from tasks.results.sheet import BASELINE, GREEDY, OPPONENT, SAMPLED, PolicySheet, best_of_how_many
from tasks.results.win_rate import Interval, bootstrap_mean

BASE = "base"


def compare_sheets(
    sheets: Mapping[str, PolicySheet],
    config: CompareConfig,
    pair_judges: Sequence[PairJudge] = (),
    selected_by: Mapping[str, str] | None = None,
) -> PolicyComparison:
    """Compare policies measured on the same data; ``sheets`` needs ``sft``, and ``base`` for the alignment tax.

    Rows come in the order of ``sheets``: sampled policies and best-of-n first, then the greedy ones. ``pair_judges`` are
    asked here; the judges that give scores have left them in the sheets. ``selected_by`` names, for each policy whose weights a
    judge chose among its iterations or epochs, that judge.

    Raises:
        DataError: the sheets were measured on different prompts, items, judges or toxicity scorers.
        JudgeError: a pair judge left too many pairs undecided.
    """
    _check_same_data(sheets)
    safety = {name: safety_figures(sheet.safety, resampling(config)) for name, sheet in sheets.items()}
    check_comparable(safety)
    contests = contests_of(sheets)
    rulings = rule(contests, sheets[BASELINE], pair_judges, config)
    rows = [_row(sheets, item, rulings[item.key], config) for item in contests]
    judges = [judge for judge in JUDGES if any(judge in row.rulings for row in rows)]
    tasks = [change for name, sheet in sheets.items() for change in _task_changes(sheets, name, sheet, config)]
    toxicity = sheets[BASELINE].toxicity
    return PolicyComparison(
        judges=judges,
        chat=None,
        confidence=config.confidence,
        temperature=sheets[BASELINE].temperature,
        toxicity_scorer=toxicity.scorer if toxicity else None,
        rows=rows,
        tasks=tasks,
        best_of_curve=sheets[BASELINE].best_of_curve,
        safety=safety,
        selected_by=dict(selected_by or {}),
        verdict=verdict.verdict(rows, judges, selected_by or {}),
        notes=[*verdict.notes(rows, judges, selected_by or {}), *verdict.noise_floor(rows, judges), *_left_out(sheets)],
        metrics=_metrics(rows, tasks, toxicity.scorer if toxicity else "") | _examples_before(sheets) | _named(safety),
    )


def contests_of(sheets: Mapping[str, PolicySheet]) -> list[Contest]:
    """Every row of the table in its order, each with its opponent."""
    baseline = sheets[BASELINE]

    def against(name: str, decoding: str, opponent: str) -> Contest:
        return contest(name, sheets[name], baseline, decoding, opponent)

    sampled = [against(name, SAMPLED, OPPONENT) for name in sheets]
    best = [against(BASELINE, name, OPPONENT) for name in baseline.decodings() if best_of_how_many(name)]
    control = against(BASELINE, GREEDY, OPPONENT)
    greedy = [against(name, GREEDY, GREEDY) for name in sheets if name != BASELINE]
    at = list(sheets).index(BASELINE) + 1
    return [*sampled[:at], control, *best, *sampled[at:], *greedy]


def _check_same_data(sheets: Mapping[str, PolicySheet]) -> None:
    if BASELINE not in sheets:
        raise DataError(f"comparison of policies: sheets are {list(sheets)}; the baseline 'sft' is missing")
    baseline = sheets[BASELINE]
    for needed in (SAMPLED, OPPONENT, GREEDY):
        if needed not in baseline.decodings():
            raise DataError(f"sheet 'sft': no {needed!r} responses; evaluate it as the baseline")
    for name, sheet in sheets.items():
        for what, mine, theirs in (
            ("test prompts", [r.prompt_id for r in sheet.samples], [r.prompt_id for r in baseline.samples]),
            ("judges", sheet.judges(), baseline.judges()),
            (
                "benchmark items",
                {t: r.item_ids for t, r in sheet.benchmarks.items()},
                {t: r.item_ids for t, r in baseline.benchmarks.items()},
            ),
            ("perplexity documents", *_documents(sheet, baseline)),
            (
                "toxicity scorer",
                sheet.toxicity and sheet.toxicity.scorer,
                baseline.toxicity and baseline.toxicity.scorer,
            ),
        ):
            if mine != theirs:
                raise DataError(f"sheets {name!r} and 'sft' differ in their {what}; evaluate both on the same data")


def _left_out(sheets: Mapping[str, PolicySheet]) -> list[str]:
    """What another vocabulary makes impossible to compare."""
    foreign = [title_of(name) for name, sheet in sheets.items() if sheet.kl is None]
    if not foreign:
        return []
    return [
        f"{', '.join(foreign)}: no KL and no perplexity ratio, because the vocabulary is not that of the reference policy; "
        "lengths count each policy's own tokens."
    ]


def _examples_before(sheets: Mapping[str, PolicySheet]) -> dict[str, float]:
    """Mean number of examples before a prompt, of a policy that was asked behind some."""
    found = {name: sheet.examples_before for name, sheet in sheets.items() if sheet.examples_before}
    return {f"examples_before/{name}": float(np.mean(counts)) for name, counts in found.items()}


def _named(safety: Mapping[str, Sequence[SafetyFigure]]) -> dict[str, float]:
    """The figures that have a name in MLflow, with their intervals."""
    found: dict[str, float] = {}
    for policy, figures in safety.items():
        for figure in (figure for figure in figures if figure.metric):
            name = figure.metric.format(policy=policy)
            found |= {name: figure.estimate, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return found


def _documents(sheet: PolicySheet, baseline: PolicySheet) -> tuple[list[int], list[int]]:
    """Tokens of the documents of both; a policy with another vocabulary has none, which is no contradiction."""
    if sheet.documents is None or baseline.documents is None:
        return [], []
    return sheet.documents.tokens, baseline.documents.tokens


def _row(
    sheets: Mapping[str, PolicySheet], item: Contest, rulings: dict[str, Ruling], config: CompareConfig
) -> PolicyRow:
    sheet = sheets[item.policy]
    row = PolicyRow(
        key=item.key,
        title=title_of(item.policy, item.decoding, sheet.temperature),
        policy=item.policy,
        decoding=item.decoding,
        against=title_of(BASELINE, item.against, sheet.temperature),
        against_decoding=item.against,
        rulings=rulings,
        scores={judge: float(np.mean([r.scores[judge] for r in item.mine])) for judge in judges_of(sheets[BASELINE])},
        kl=_kl(sheet, item.decoding, config),
        kl_is_bound=item.decoding not in (SAMPLED, GREEDY),
        length=float(np.mean([r.tokens for r in item.mine])),
        eos_rate=float(np.mean([r.finished for r in item.mine])),
        truth=_truth(sheet, item.decoding),
        against_start=against_start(sheets, item, config),
        against_yardstick=against_yardstick(sheets, item, config),
    )
    return row if item.decoding != SAMPLED else row.model_copy(update=_tax(sheets, sheet, config))


def _kl(sheet: PolicySheet, decoding: str, config: CompareConfig) -> Interval | None:
    if decoding == SAMPLED:
        return bootstrap_mean(np.array(sheet.kl), resampling(config).named("kl", sheet.name)) if sheet.kl else None
    n = best_of_how_many(decoding)
    if n is None:
        return None
    bound = best_of_n_kl(n)
    return Interval(estimate=bound, low=bound, high=bound)


def _truth(sheet: PolicySheet, decoding: str) -> TruthShares | None:
    answers = sheet.truthfulness.get(decoding)
    if answers is None or not answers.true:
        return None
    both = np.array(answers.true) & np.array(answers.informative)
    held_out = np.array(answers.held_out, dtype=bool)
    return TruthShares(
        questions=len(both),
        true=float(np.mean(answers.true)),
        informative=float(np.mean(answers.informative)),
        both=float(both.mean()),
        held_out_questions=int(held_out.sum()),
        both_held_out=float(both[held_out].mean()) if held_out.any() else None,
    )


def _tax(sheets: Mapping[str, PolicySheet], sheet: PolicySheet, config: CompareConfig) -> dict[str, object]:
    """What only the policy as a whole has: benchmarks, perplexity, toxicity."""
    how = resampling(config)
    found: dict[str, object] = {}
    if sheet.benchmarks:
        found["benchmark"] = macro_mean(sheet.benchmarks)
        for field, other in (("change_vs_base", BASE), ("change_vs_sft", BASELINE)):
            if other in sheets and other != sheet.name:
                found[field] = macro_change(sheet.benchmarks, sheets[other].benchmarks, how.named(field, sheet.name))
    if sheet.documents is not None and BASE in sheets:
        base = sheets[BASE].documents
        assert base is not None
        found["perplexity_ratio"] = perplexity_ratio(
            sheet.documents.nll,
            base.nll,
            base.tokens,
            how.named("perplexity", sheet.name),
        )
    if sheet.toxicity is not None:
        baseline = sheets[BASELINE].toxicity
        assert baseline is not None
        how = how.named("toxicity", sheet.name)
        found["toxicity"] = bootstrap_mean(np.array(sheet.toxicity.scores), how)
        found["toxicity_change_vs_sft"] = paired_change(sheet.toxicity.scores, baseline.scores, how)
    return found


def _task_changes(
    sheets: Mapping[str, PolicySheet], name: str, sheet: PolicySheet, config: CompareConfig
) -> list[TaskChange]:
    def change(task: str, other: str) -> Interval | None:
        if other not in sheets or other == name:
            return None
        return task_change(
            task,
            sheet.benchmarks[task],
            sheets[other].benchmarks[task],
            resampling(config).named("task", name, task, other),
        )

    return [
        TaskChange(
            policy=name,
            task=task,
            items=len(result.correct),
            accuracy=task_score(result),
            change_vs_base=change(task, BASE),
            change_vs_sft=change(task, BASELINE),
        )
        for task, result in sheet.benchmarks.items()
    ]


def _metrics(rows: list[PolicyRow], tasks: list[TaskChange], scorer: str) -> dict[str, float]:
    """Flat names for tracking; shares are in [0, 1]."""
    found: dict[str, float] = {"test_prompts": float(max(w.prompts for row in rows for w in row.win.values()))}

    def put(name: str, value: Interval | float | None) -> None:
        if isinstance(value, Interval):
            found.update({name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high})
        elif value is not None:
            found[name] = value

    for row in rows:
        for judge, ruling in row.rulings.items():
            put(f"win_rate/{row.key}/{judge}", ruling.win.bootstrap)
            put(f"win_rate_by_owner/{row.key}/{judge}", ruling.win.clustered)
            put(f"tie_rate/{row.key}/{judge}", ruling.win.ties / ruling.win.prompts)
            put(f"win_rate/{row.key}/{judge}_held_out", ruling.win_held_out.rate if ruling.win_held_out else None)
            put(f"win_rate_unseen/{row.key}/{judge}", ruling.win_unseen.bootstrap if ruling.win_unseen else None)
            put(f"win_rate_lc/{row.key}/{judge}", ruling.length_controlled)
            put(f"win_rate_style/{row.key}/{judge}", ruling.style_controlled)
            if ruling.orders is not None:
                put(f"position_bias/{row.key}/{judge}", ruling.orders.position_bias)
                put(f"inconsistent/{row.key}/{judge}", ruling.orders.inconsistent / ruling.orders.pairs)
                put(f"unjudged/{row.key}/{judge}", ruling.orders.unjudged / ruling.orders.pairs)
        for judge, win in row.against_start.items():
            put(f"win_rate_vs_start/{row.key}/{judge}", win.bootstrap)
        for judge, win in row.against_yardstick.items():
            put(f"win_rate_vs_yardstick/{row.key}/{judge}", win.bootstrap)
        for judge, score in row.scores.items():
            put(f"score/{row.key}/{judge}", score)
        put(f"kl/{row.key}", row.kl.estimate if row.kl else None)
        put(f"length/{row.key}", row.length)
        put(f"eos_rate/{row.key}", row.eos_rate)
        put(f"benchmark/{row.key}/mean", row.benchmark)
        put(f"benchmark/{row.key}/change_vs_base", row.change_vs_base)
        put(f"benchmark/{row.key}/change_vs_sft", row.change_vs_sft)
        put(f"perplexity_ratio/{row.key}", row.perplexity_ratio)
        put(f"toxicity/{row.key}/{scorer}", row.toxicity)
        put(f"toxicity/{row.key}/change_vs_sft", row.toxicity_change_vs_sft)
        if row.truth:
            put(f"truth/{row.key}/true", row.truth.true)
            put(f"truth/{row.key}/informative", row.truth.informative)
            put(f"truth/{row.key}/both", row.truth.both)
            put(f"truth/{row.key}/both_held_out", row.truth.both_held_out)
    for change in tasks:
        put(f"benchmark_task/{change.policy}/{change.task}", change.accuracy)
    return found
