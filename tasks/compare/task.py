"""The comparison as a task: every policy's sheet side by side, as numbers and as a page."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from tasks.compare.compare import compare_sheets, contests_of
from tasks.compare.config import CompareConfig
from tasks.compare.judges.chat import ChatJudge, answer_cache
from tasks.compare.judges.humans import HumanJudge, pairs_for_humans, write_pairs
from tasks.compare.report import ReportInputs, write_report
from tasks.compare.rulings import resampling
from tasks.engine.caching import stage
from tasks.engine.stage import Metrics, Workshop
from tasks.results.comparison import COMPARISON, REPORT, PolicyComparison
from tasks.results.judge import CHAT, HUMANS, PairJudge
from tasks.results.sheet import BASELINE, PolicySheet, read_sheet
from tasks.results.verdict import leading_policy, percent
from tasks.results.win_rate import derived_seed

logger = logging.getLogger("plumbline")

PARTS = 4  # what policy_sheet.evaluate_policy announces
FOR_HUMANS = "pairs_for_humans.jsonl"
INDEPENDENT_INPUT = "independent_reward_model"


@stage("comparison of all policies")
def compare_policies(shop: Workshop, config: CompareConfig) -> Metrics:
    """Win rates, alignment tax and safety of every policy against SFT, as numbers and as a page."""
    sheets = {name: read_sheet(shop.input(name)) for name in shop.inputs if not name.endswith("_policy")}
    curves = {
        name.removesuffix("_policy"): json.loads((shop.input(name) / "history.json").read_text(encoding="utf-8"))
        for name in shop.inputs
        if name.endswith("_policy")
    }
    chat, humans = _pair_judges(shop, config)
    judges: list[PairJudge] = [judge for judge in (chat, humans) if judge is not None]
    comparison = compare_sheets(sheets, config, judges)
    if chat is not None:
        comparison = comparison.model_copy(update={"chat": chat.usage})
        _tell(chat, shop)
    if humans is not None:
        comparison = comparison.model_copy(update={"notes": [*comparison.notes, _coverage(humans, config)]})
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


def _digests(shop: Workshop, sheets: Mapping[str, PolicySheet]) -> dict[str, str]:
    """Of what the page is made from, and of what the sheets were made from: data, policies, reward models."""
    found = {f"sheet of {name}" if name in sheets else name: ref.digest for name, ref in shop.inputs.items()}
    for name in sheets:
        ref = shop.inputs[name]
        manifest = shop.store.manifest(ref.stage, ref.fingerprint)
        for parent, digest in (manifest.parents if manifest else {}).items():
            found[f"policy {name}" if parent == "policy" else parent] = digest
    return {name: digest for name, digest in found.items() if not name.endswith("_policy")}


def _pair_judges(shop: Workshop, config: CompareConfig) -> tuple[ChatJudge | None, HumanJudge | None]:
    chat, verdicts = config.judges.chat, config.judges.human_verdicts
    return (
        ChatJudge(CHAT, chat, answer_cache(shop.store.root.parent)) if chat is not None else None,
        HumanJudge(HUMANS, Path(verdicts)) if verdicts is not None else None,
    )


def _tell(chat: ChatJudge, shop: Workshop) -> None:
    """What the chat judge cost; requests depend on what was asked before, so they are tracked and not published."""
    usage = chat.usage
    spent = {
        "judge/chat_requests": chat.requests,
        "judge/chat_failures": chat.failures.total(),
        "judge/chat_questions": usage.questions,
        "judge/chat_prompt_tokens": usage.prompt_tokens,
        "judge/chat_completion_tokens": usage.completion_tokens,
        **({"judge/chat_cost": usage.cost} if usage.cost is not None else {}),
    }
    shop.log.metrics({name: float(value) for name, value in spent.items()})
    logger.info(
        "chat judge %s: %d verdicts from %d requests, the others were on disk; failed attempts: %s",
        usage.model,
        usage.questions,
        chat.requests,
        dict(chat.failures) or "none",
    )


def _coverage(humans: HumanJudge, config: CompareConfig) -> str:
    between = humans.agreement(resampling(config).named("people"))
    said = (
        f" Where several judged the same pair, {percent(between.exact.estimate)} of {between.comparisons} comparisons agree."
        if between.exact is not None
        else ""
    )
    return (
        f"People: {humans.lines} verdicts in the file, {humans.unmatched} of them on responses that are not in this "
        f"comparison.{said}"
    )


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
    write_pairs(path, pairs_for_humans(pairs, config.judges.human_pairs, derived_seed(config.seed, "pairs for humans")))
