import math
from typing import Any

import pytest

from tasks.compare.compare import compare_sheets
from tasks.engine.errors import ArtifactError, DataError
from tasks.results.comparison import PolicyComparison, PolicyRow
from tasks.results.sheet import DocumentLoss, PolicySheet, Response, SafetyScores, read_sheet, write_sheet
from tests.unit.results.sheets import evaluation_config, four, response, sheet, trio

CONFIG = evaluation_config(best_of_n=[4], bootstrap_samples=400)


@pytest.fixture(scope="module")
def comparison() -> PolicyComparison:
    return compare_sheets(trio(), CONFIG)


def row(comparison: PolicyComparison, key: str) -> PolicyRow:
    found = comparison.row(key)
    assert found is not None
    return found


def without_gold(sheets: dict[str, PolicySheet]) -> dict[str, PolicySheet]:
    def strip(responses: dict[str, Response]) -> dict[str, Response]:
        only = "reward_model"
        return {d: r.model_copy(update={"scores": {only: r.scores[only]}}) for d, r in responses.items()}

    return {
        name: s.model_copy(
            update={
                "samples": [p.model_copy(update={"responses": strip(p.responses)}) for p in s.samples],
                "best_of_curve": [],
            }
        )
        for name, s in sheets.items()
    }


def test_rows_stand_in_reading_order_with_their_opponents(comparison: PolicyComparison) -> None:
    assert [(r.key, r.against) for r in comparison.rows] == [
        ("base", "SFT, T = 1"),
        ("sft", "SFT, T = 1"),
        ("sft_greedy", "SFT, T = 1"),
        ("best_of_4", "SFT, T = 1"),
        ("ppo_ptx", "SFT, T = 1"),
        ("base_greedy", "SFT, greedy"),
        ("ppo_ptx_greedy", "SFT, greedy"),
    ]


@pytest.mark.parametrize(
    ("key", "gold", "proxy"),
    [
        ("base", 0.25, 0.25),
        ("sft", 0.625, 0.625),
        ("sft_greedy", 0.75, 0.75),
        ("best_of_4", 2 / 3, 2 / 3),
        ("ppo_ptx", 0.75, 1.0),
        ("base_greedy", 0.0, 0.0),
        ("ppo_ptx_greedy", 0.75, 1.0),
    ],
)
def test_win_rates_by_hand(comparison: PolicyComparison, key: str, gold: float, proxy: float) -> None:
    assert row(comparison, key).win["gold"].rate == pytest.approx(gold)
    assert row(comparison, key).win["reward_model"].rate == pytest.approx(proxy)
    assert comparison.metrics[f"win_rate/{key}/gold"] == pytest.approx(gold)
    low, high = comparison.metrics[f"win_rate/{key}/gold_low"], comparison.metrics[f"win_rate/{key}/gold_high"]
    assert low <= gold + 1e-9
    assert high >= gold - 1e-9


def test_tax_by_hand(comparison: PolicyComparison) -> None:
    base, sft, ptx = (row(comparison, key) for key in ("base", "sft", "ppo_ptx"))
    assert base.benchmark == pytest.approx(0.8)
    assert sft.change_vs_base is not None
    assert sft.change_vs_base.estimate == pytest.approx(-0.225)
    assert ptx.change_vs_base is not None
    assert ptx.change_vs_base.estimate == pytest.approx(-0.15)
    assert comparison.metrics["benchmark/ppo_ptx/change_vs_sft"] == pytest.approx(0.075)
    assert comparison.metrics["benchmark_task/ppo_ptx/sums"] == 0.5
    assert comparison.metrics["perplexity_ratio/ppo_ptx"] == pytest.approx(math.exp(0.15))
    assert comparison.metrics["perplexity_ratio/base"] == 1.0
    change = next(c for c in comparison.tasks if (c.policy, c.task) == ("ppo_ptx", "copy"))
    assert change.change_vs_sft is not None
    assert (change.items, change.change_vs_sft.estimate) == (5, pytest.approx(0.4))


def test_safety_and_shape_by_hand(comparison: PolicyComparison) -> None:
    metrics = comparison.metrics
    assert metrics["toxicity/base/sandbox_words"] == 0.75
    assert metrics["toxicity/ppo_ptx/sandbox_words"] == 0.25
    assert (metrics["truth/ppo_ptx/true"], metrics["truth/ppo_ptx/both"]) == (0.75, 0.5)
    assert metrics["truth/ppo_ptx/both_held_out"] == 0.5
    assert metrics["win_rate/ppo_ptx/gold_held_out"] == 0.0  # prompt 3: 0 against 1
    assert metrics["kl/ppo_ptx"] == 1.5
    assert metrics["kl/best_of_4"] == pytest.approx(math.log(4) - 0.75)
    assert row(comparison, "best_of_4").kl_is_bound
    assert (metrics["length/ppo_ptx"], metrics["eos_rate/ppo_ptx"], metrics["score/ppo_ptx/gold"]) == (4, 1, 1.5)
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_same_policy_twice_is_even_and_changes_nothing() -> None:
    sheets = trio()
    twin = sheets["sft"].model_copy(update={"name": "ppo_ptx"})
    found = compare_sheets({"sft": sheets["sft"], "ppo_ptx": twin}, CONFIG)
    for judge in found.judges:
        greedy = row(found, "ppo_ptx_greedy").win[judge]
        assert (greedy.rate, greedy.bootstrap.low, greedy.bootstrap.high) == (0.5, 0.5, 0.5)
        assert row(found, "ppo_ptx").win[judge].rate == row(found, "sft").win[judge].rate
    change = row(found, "ppo_ptx").change_vs_sft
    assert change is not None
    assert (change.estimate, change.low, change.high) == (0, 0, 0)
    assert "is level with it when both are greedy" in found.verdict


def test_verdict_follows_the_intervals() -> None:
    better = {
        "sft": sheet("sft", {"sampled": four([1] * 40), "opponent": four([1] * 40), "greedy": four([2] * 40)}),
        "ppo_ptx": sheet("ppo_ptx", {"sampled": four([2] * 40), "greedy": four([1] * 40)}),
    }
    found = compare_sheets(better, CONFIG)
    assert found.verdict == (
        "Too few prompts (40, fewer than 100) to conclude anything. "
        "PPO-ptx beats SFT when both are sampled (100.0 % [100.0, 100.0]) and loses to it when both are greedy "
        "(0.0 % [0.0, 0.0]), by the gold labeler."
    )
    assert any("no gain beyond what this decoding gives for free" in note for note in found.notes)


def test_stage_blame() -> None:
    def run(best: float, trained: float) -> str:
        golds = {"sampled": 1, "opponent": 1, "greedy": 1, "best_of_4": best}
        sheets = {
            "sft": sheet("sft", {decoding: four([gold] * 30) for decoding, gold in golds.items()}),
            "ppo_ptx": sheet("ppo_ptx", {"sampled": four([trained] * 30), "greedy": four([trained] * 30)}),
        }
        return " ".join(compare_sheets(sheets, CONFIG).notes)

    assert "Stage blame: PPO." in run(best=2, trained=1)
    assert "Stage blame: the reward model." in run(best=0, trained=0)
    assert "Stage blame: none. Best-of-n" in run(best=2, trained=2)
    assert "Stage blame: none for PPO." in run(best=1, trained=2)


def test_stage_blame_tells_a_ppo_that_went_too_far_from_one_that_did_not_learn() -> None:
    def run(proxy: float) -> str:
        golds = {"sampled": 1, "opponent": 1, "greedy": 1, "best_of_4": 2}
        sheets = {
            "sft": sheet("sft", {decoding: four([gold] * 30) for decoding, gold in golds.items()}),
            "ppo_ptx": sheet("ppo_ptx", {d: four([0] * 30, [proxy] * 30) for d in ("sampled", "greedy")}),
        }
        return " ".join(compare_sheets(sheets, CONFIG).notes)

    assert "went too far or the wrong way" in run(proxy=9)
    assert "did not learn" in run(proxy=0)


def test_nobody_is_blamed_on_the_word_of_the_optimised_reward_model() -> None:
    golds = {"sampled": 1, "opponent": 1, "greedy": 1, "best_of_4": 2}
    sheets = {
        "sft": sheet("sft", {decoding: four([gold] * 30) for decoding, gold in golds.items()}),
        "ppo_ptx": sheet("ppo_ptx", {d: four([0] * 30) for d in ("sampled", "greedy")}),
    }
    assert not any("blame" in note for note in compare_sheets(without_gold(sheets), CONFIG).notes)


def test_over_optimisation_is_named() -> None:
    sheets = {
        "sft": sheet("sft", {d: four([1] * 30) for d in ("sampled", "opponent", "greedy")}),
        "ppo": sheet("ppo", {d: four([0] * 30, [2] * 30) for d in ("sampled", "greedy")}),
    }
    found = compare_sheets(sheets, CONFIG)
    assert any(note.startswith("Over-optimised") for note in found.notes)
    assert "PPO (gamma = 0) loses to SFT" in found.verdict


def test_toxicity_change_is_reported_only_when_clear() -> None:
    def run(toxic: list[float]) -> str:
        sheets = {
            "sft": sheet("sft", {d: four([1] * 4) for d in ("sampled", "opponent", "greedy")}, toxic=[0.0] * 40),
            "ppo": sheet("ppo", {d: four([1] * 4) for d in ("sampled", "greedy")}, toxic=toxic),
        }
        return " ".join(compare_sheets(sheets, CONFIG).notes)

    assert "Toxicity on bait prompts rises by +50.0" in run([1.0, 0.0] * 20)
    assert "Toxicity" not in run([1.0] + [0.0] * 39)


def test_without_gold_the_judge_is_named_as_the_optimised_proxy() -> None:
    found = compare_sheets(without_gold(trio()), CONFIG)
    assert found.judges == ["reward_model"]
    assert any("the reward model that PPO and best-of-n optimised" in note for note in found.notes)
    assert not any("gold" in name for name in found.metrics)
    assert "by the reward model" in found.verdict


def test_a_base_is_optional_and_other_policies_are_welcome() -> None:
    sheets = trio()
    found = compare_sheets({"sft": sheets["sft"], "rival": sheets["ppo_ptx"]}, CONFIG)
    assert row(found, "rival").change_vs_base is None
    assert row(found, "rival").title == "rival, T = 1"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"benchmarks": {}}, "benchmark items"),
        ({"documents": DocumentLoss(nll=[1.0, 1.0], tokens=[9, 10])}, "perplexity documents"),
        ({"toxicity": None}, "toxicity scorer"),
    ],
)
def test_sheets_of_different_data_are_refused(change: dict[str, Any], what: str) -> None:
    sheets = trio()
    sheets["ppo_ptx"] = sheets["ppo_ptx"].model_copy(update=change)
    with pytest.raises(DataError, match=f"'ppo_ptx' and 'sft' differ in their {what}"):
        compare_sheets(sheets, CONFIG)


def test_figures_of_two_toxicity_scorers_are_never_mixed() -> None:
    sheets = {
        "sft": sheet("sft", {d: four([1, 1]) for d in ("sampled", "opponent", "greedy")}, toxic=[0.0]),
        "ppo": sheet("ppo", {d: four([1, 1]) for d in ("sampled", "greedy")}, toxic=[0.0], scorer="word_list-1"),
    }
    with pytest.raises(DataError, match="toxicity scorer"):
        compare_sheets(sheets, CONFIG)


def test_safety_figures_of_two_scorers_are_never_mixed() -> None:
    sheets = trio()
    figure = SafetyScores(measure="toxicity", layout="biased", scorer="one", unit="share", values=[0.0, 0.3, 0.0])
    alike = {name: found.model_copy(update={"safety": [figure]}) for name, found in sheets.items()}
    compare_sheets(alike, CONFIG)
    other = alike["ppo_ptx"].model_copy(update={"safety": [figure.model_copy(update={"scorer": "two"})]})
    with pytest.raises(DataError, match=r"toxicity \(biased\): 'ppo_ptx' has scorer two on 3 items"):
        compare_sheets({**alike, "ppo_ptx": other}, CONFIG)


def test_other_prompts_and_a_missing_baseline_are_refused() -> None:
    sheets = trio()
    fewer = sheets["ppo_ptx"].model_copy(update={"samples": sheets["ppo_ptx"].samples[:3]})
    with pytest.raises(DataError, match="test prompts"):
        compare_sheets({**sheets, "ppo_ptx": fewer}, CONFIG)
    with pytest.raises(DataError, match="the baseline 'sft' is missing"):
        compare_sheets({"base": sheets["base"]}, CONFIG)
    with pytest.raises(DataError, match="no 'opponent' responses"):
        compare_sheets({"sft": sheets["ppo_ptx"]}, CONFIG)


def test_a_sheet_survives_the_disk(tmp_path: Any) -> None:
    odd = response(0.1 + 0.2, -1.5, text='</script> "quoted"\n\u2028 end', finished=False)
    written = sheet("sft", {"sampled": [odd], "greedy": [odd]}, benchmarks={"t": [1]}, nll=[0.5], toxic=[0.25])
    write_sheet(written, tmp_path)
    assert read_sheet(tmp_path) == written
    assert "\\u2028 end" not in (tmp_path / "sheet.json").read_text()


def test_a_damaged_or_missing_sheet_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ArtifactError, match="no evaluation sheet"):
        read_sheet(tmp_path)
    write_sheet(trio()["base"], tmp_path)
    (tmp_path / "samples.jsonl").write_text('{"prompt_id": 1}\n')
    with pytest.raises(ArtifactError, match="damaged evaluation sheet"):
        read_sheet(tmp_path)
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(ArtifactError, match="holds no prompt"):
        read_sheet(tmp_path)
