"""Pair judges inside a comparison: what they add to rows, notes, metrics, tables and the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.evaluation_config import EvaluationConfig
from tasks.compare import compare_policies
from tasks.compare.compare import compare_sheets
from tasks.compare.task import FOR_HUMANS
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.caching import as_task
from tasks.engine.config import RuntimeConfig
from tasks.engine.context import StageContext, StageName
from tasks.results.comparison import COMPARISON, REPORT, PolicyComparison
from tasks.results.judge import Pair, PairVerdicts, judge_both_orders
from tasks.results.sheet import PolicySheet, Response, write_sheet
from tasks.results.table import PREFERENCE, judge_table, kind_table, policy_table
from tests.unit import tiny_models
from tests.unit.chat.chat_server import Reply, chat_config, longer_wins, serving
from tests.unit.results.sheets import evaluation_config, sheet, trio

CONFIG = evaluation_config(best_of_n=[], bootstrap_samples=200, samples_in_report=3)
PROMPTS = 24


class First:
    name = "chat"

    def judge(self, pairs: Any) -> PairVerdicts:
        return judge_both_orders(self.name, lambda questions: [1] * len(questions), pairs)


def said(text: str, gold: float, row: int) -> Response:
    scores = {"gold": gold, "reward_model": gold}
    return Response(text=f"{text} {row}", finished=True, tokens=len(text.split()) + 1, scores=scores)


def wordy(gold: float = 0.0) -> dict[str, PolicySheet]:
    """A policy that says the same with many more words; the gold labeler is indifferent unless told otherwise."""
    long, short = "very " * 9 + "long", "short"
    return {
        "sft": sheet(
            "sft", {d: [said(f"{d} {short}", 0, i) for i in range(PROMPTS)] for d in ("sampled", "opponent", "greedy")}
        ),
        "ppo_ptx": sheet(
            "ppo_ptx",
            {d: [said(f"{d} {long * (1 + i % 3)}", gold, i) for i in range(PROMPTS)] for d in ("sampled", "greedy")},
        ),
    }


def test_a_judge_of_places_is_exposed_in_row_note_metric_and_table() -> None:
    found = compare_sheets(wordy(), CONFIG, [First()])
    ruling = next(row for row in found.rows if row.key == "ppo_ptx").rulings["chat"]
    assert ruling.orders is not None
    assert (ruling.win.rate, ruling.orders.position_bias, ruling.orders.inconsistent) == (0.5, 1.0, PROMPTS)
    assert found.judges == ["gold", "chat", "reward_model"]
    assert found.metrics["position_bias/ppo_ptx/chat"] == found.metrics["inconsistent/ppo_ptx/chat"] == 1.0
    assert found.metrics["win_rate/ppo_ptx/chat"] == 0.5
    assert found.metrics["unjudged/ppo_ptx/chat"] == 0.0
    note = next(note for note in found.notes if note.startswith("Order effects of the chat model on PPO-ptx, T = 1"))
    assert "24 of 24 pairs changed their winner with the order; position bias +1.00" in note
    table = judge_table(found)
    line = next(
        row.cells for row in table.rows if row.cells[0].text == "PPO-ptx, T = 1" and row.cells[1].text == "chat model"
    )
    shown = dict(zip(table.headings, line, strict=True))
    assert (shown["Position bias"].text, shown["Order changed winner %"].text) == ("+1.00", "100.0")


def test_a_judge_that_counts_words_is_exposed_at_equal_length() -> None:
    class Longer:
        name = "chat"

        def judge(self, pairs: Any) -> PairVerdicts:
            return judge_both_orders(
                self.name,
                lambda qs: [(len(q.first) > len(q.second)) - (len(q.first) < len(q.second)) for q in qs],
                pairs,
            )

    lengths = [3, 9, 2, 8, 1, 12, 15, 4, 20, 7, 11, 6] * 10
    theirs = [5, 8, 4, 6, 2, 7, 3, 6, 9, 5, 8, 3] * 10

    def answers(counts: list[int], word: str) -> list[Response]:
        return [said(" ".join([word] * count), 0, i) for i, count in enumerate(counts)]

    sheets = {
        "sft": sheet("sft", {d: answers(theirs, d[:3]) for d in ("sampled", "opponent", "greedy")}),
        "ppo_ptx": sheet("ppo_ptx", {d: answers(lengths, d[:3]) for d in ("sampled", "greedy")}),
    }
    found = compare_sheets(without_scores(sheets, "gold"), CONFIG, [Longer()])
    ruling = next(row for row in found.rows if row.key == "ppo_ptx").rulings["chat"]
    assert ruling.length_controlled is not None
    assert ruling.win.bootstrap.low > 0.55
    assert ruling.length_controlled.low < 0.5 < ruling.length_controlled.high
    assert any(note.startswith("Length matters: at equal length the chat model") for note in found.notes)
    assert found.metrics["win_rate_lc/ppo_ptx/chat"] == ruling.length_controlled.estimate
    assert "At equal length %" in policy_table(found, PREFERENCE).headings


def without_scores(sheets: dict[str, PolicySheet], judge: str) -> dict[str, PolicySheet]:
    def strip(item: Response) -> Response:
        return item.model_copy(update={"scores": {name: s for name, s in item.scores.items() if name != judge}})

    return {
        name: one.model_copy(
            update={
                "samples": [
                    row.model_copy(update={"responses": {d: strip(r) for d, r in row.responses.items()}})
                    for row in one.samples
                ]
            }
        )
        for name, one in sheets.items()
    }


def test_the_independent_reward_model_decides_where_there_is_no_gold() -> None:
    def score(item: Response) -> Response:
        return item.model_copy(
            update={"scores": {"reward_model": item.scores["gold"], "independent": -item.scores["gold"]}}
        )

    sheets = {
        name: one.model_copy(
            update={
                "samples": [
                    row.model_copy(update={"responses": {d: score(r) for d, r in row.responses.items()}})
                    for row in one.samples
                ]
            }
        )
        for name, one in wordy(gold=1.0).items()
    }
    found = compare_sheets(sheets, CONFIG)
    assert found.judges == ["independent", "reward_model"]
    assert "loses to SFT" in found.verdict and "by the independent reward model" in found.verdict
    assert any("Over-optimised: the reward model prefers PPO-ptx" in note for note in found.notes)


def test_a_judge_of_a_few_pairs_decides_nothing_and_is_shown_where_it_ruled() -> None:
    class Few:
        name = "humans"

        def judge(self, pairs: list[Pair]) -> PairVerdicts:
            found = judge_both_orders(self.name, lambda questions: [0] * len(questions), pairs)
            found.outcomes[3:] = float("nan")
            if pairs[0].names != ("ppo_ptx", "sft"):
                found.outcomes[:] = float("nan")
            return found

    found = compare_sheets(wordy(gold=1.0), CONFIG, [Few()])
    assert "by the gold labeler" in found.verdict
    by_key = {row.key: row for row in found.rows}
    assert by_key["ppo_ptx"].win["humans"].prompts == 3
    assert "humans" not in by_key["ppo_ptx_greedy"].rulings
    texts = {row.cells[0].text: row.cells[1].text for row in policy_table(found, PREFERENCE).rows}
    assert texts["PPO-ptx, greedy"] == "100.0"


def test_win_rate_by_kind_of_prompt() -> None:
    sheets = wordy(gold=1.0)
    for name, one in sheets.items():
        rows = [row.model_copy(update={"kind": "chat" if i % 4 else "rewrite"}) for i, row in enumerate(one.samples)]
        sheets[name] = one.model_copy(update={"samples": rows})
    found = compare_sheets(sheets, CONFIG)
    table = kind_table(found)
    assert table.headings == ["Policy", "chat", "rewrite"]
    cells = {row.cells[0].text: row.cells[1:] for row in table.rows}
    assert [cell.text for cell in cells["PPO-ptx, T = 1"]] == ["100.0", "100.0"]
    assert cells["PPO-ptx, T = 1"][1].detail.endswith(", 6")
    assert kind_table(compare_sheets(trio(), CONFIG)).rows == []  # one kind is no comparison


def published(store: ArtifactStore, sheets: dict[str, PolicySheet]) -> dict[str, ArtifactRef]:
    refs = {}
    for name, one in sheets.items():
        with store.publish(f"evaluation-{name}", "f" * 20, {}, {}) as draft:
            write_sheet(one, draft.folder)
        assert draft.ref is not None
        refs[name] = draft.ref
    return refs


def run(folder: Path, config: EvaluationConfig, sheets: dict[str, PolicySheet]) -> Path:
    """The stage as the pipeline runs it, without tracking; the answers lie beside the store."""
    store = ArtifactStore(folder / "artifacts")
    runtime: RuntimeConfig = tiny_models.runtime()
    context = StageContext(
        store=str(store.root),
        tracking_uri="",
        experiment_id="",
        parent_run_id="",
        runtime=runtime,
        command="python -m flows.rlhf seed=7",
        run_config={"seed": 7},
    )
    return store.open(
        as_task(compare_policies).fn(StageName(group="evaluation"), config.compared, context, published(store, sheets))
    )


def test_the_stage_asks_once_and_finds_the_answers_again(tmp_path: Path) -> None:
    with serving(longer_wins) as server:
        judges = CONFIG.judges.model_copy(update={"chat": chat_config(server.url), "human_pairs": 10})
        config = CONFIG.model_copy(update={"judges": judges})
        folder = run(tmp_path, config, wordy())
        asked = len(server.requests)
        assert asked > 0
        comparison = PolicyComparison.model_validate_json((folder / COMPARISON).read_text())
        assert comparison.chat is not None
        assert comparison.chat.questions == asked
        assert comparison.metrics["win_rate/ppo_ptx/chat"] == 1.0
        page = (folder / REPORT).read_text()
        assert "Chat model judge-1: " in page
        assert "python -m flows.rlhf seed=7" in page
        assert len((folder / FOR_HUMANS).read_text().splitlines()) == 10
        again = config.model_copy(update={"bootstrap_samples": 300})  # another fingerprint, the same questions
        run(tmp_path, again, wordy())
        assert len(server.requests) == asked


def test_people_join_through_the_file_that_the_stage_wrote(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"judges": CONFIG.judges.model_copy(update={"human_pairs": 12})})
    rows = [json.loads(line) for line in (run(tmp_path, config, wordy()) / FOR_HUMANS).read_text().splitlines()]
    for row in rows:
        row.update(verdict="a" if "very" in row["response_a"] else "b", annotator="kim")
    rows.append(
        {"prompt_id": "p0", "response_a": "an old answer", "response_b": "another", "verdict": "a", "annotator": "kim"}
    )
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judges = config.judges.model_copy(update={"human_verdicts": str(verdicts)})
    folder = run(tmp_path, config.model_copy(update={"judges": judges}), wordy())
    comparison = PolicyComparison.model_validate_json((folder / COMPARISON).read_text())
    by_key = {row.key: row for row in comparison.rows}
    judged = [by_key[key].win["humans"] for key in ("ppo_ptx", "ppo_ptx_greedy") if "humans" in by_key[key].rulings]
    assert sum(win.prompts for win in judged) == 12
    assert all(win.rate == 1.0 for win in judged)
    assert any(
        "13 verdicts in the file, 1 of them on responses that are not in this comparison" in n for n in comparison.notes
    )


def test_a_judge_that_fails_leaves_no_artifact(tmp_path: Path) -> None:
    from tasks.engine.errors import JudgeError

    with serving(lambda count, request: Reply("no idea")) as server:
        judges = CONFIG.judges.model_copy(update={"chat": chat_config(server.url, retries=0)})
        with pytest.raises(JudgeError, match="without a verdict"):
            run(tmp_path, CONFIG.model_copy(update={"judges": judges}), wordy())
    assert not list((tmp_path / "artifacts" / "evaluation").glob("*"))


def test_how_patiently_a_judge_is_asked_and_where_a_file_lies_do_not_count(tmp_path: Path) -> None:
    def fields(chat: dict[str, Any], verdicts: Path | None = None) -> Any:
        judges = CONFIG.judges.model_copy(
            update={"chat": chat_config("http://127.0.0.1:1/v1", **chat), "human_verdicts": verdicts and str(verdicts)}
        )
        return CONFIG.model_copy(update={"judges": judges}).fingerprint_fields()

    assert fields({}) == fields({"concurrency": 1, "retries": 9, "timeout_seconds": 1, "api_key_env": "OTHER"})
    assert fields({}) != fields({"model": "judge-2"})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "v.jsonl").write_text("{}")
    assert fields({}, tmp_path / "one" / "v.jsonl") == fields({}, tmp_path / "two" / "v.jsonl")
    (tmp_path / "two" / "v.jsonl").write_text("{ }")
    assert fields({}, tmp_path / "one" / "v.jsonl") != fields({}, tmp_path / "two" / "v.jsonl")


def test_a_chat_judge_does_not_measure_the_policies_again() -> None:
    judges = CONFIG.judges.model_copy(update={"chat": chat_config("http://127.0.0.1:1/v1"), "human_pairs": 3})
    with_chat = CONFIG.model_copy(update={"judges": judges})
    assert with_chat.measured.fingerprint_fields() == CONFIG.measured.fingerprint_fields()
    assert with_chat.fingerprint_fields() != CONFIG.fingerprint_fields()
