"""The headline: what PPO is credited with, what comes first, and who may not be the judge."""

import pytest

from tasks.compare.compare import compare_sheets
from tasks.results.comparison import PolicyComparison
from tasks.results.sheet import PolicySheet
from tests.unit.results.sheets import evaluation_config, four, sheet

CONFIG = evaluation_config(bootstrap_samples=200).compared
PROMPTS = 120


def run(
    ppo: float, init: float, *, kl: float = 2.0, base: float = 0.0, prompts: int = PROMPTS, **chosen: str
) -> PolicyComparison:
    """Every response of a policy has one gold score; SFT's is 1."""

    def policy(name: str, gold: float, *decodings: str) -> PolicySheet:
        return sheet(name, {decoding: four([gold] * prompts) for decoding in ("sampled", "greedy", *decodings)})

    sheets = {
        "base": policy("base", base),
        "sft": policy("sft", 1.0, "opponent"),
        "ppo_init": policy("ppo_init", init),
        "ppo_ptx": policy("ppo_ptx", ppo).model_copy(update={"kl": [kl] * prompts}),
    }
    return compare_sheets(sheets, CONFIG, selected_by=chosen)


def test_ppo_is_not_credited_with_what_its_start_had() -> None:
    found = run(ppo=2.0, init=2.0, kl=1.0)
    assert found.verdict.startswith("PPO has not moved: against PPO-init, where it starts, it wins 50.0 % [50.0, 50.0]")
    assert "PPO-init itself stands at 100.0 % [100.0, 100.0] sampled" in found.verdict
    row = found.row("ppo_init")
    assert row is not None and row.title == "PPO-init, T = 1" and row.win["gold"].rate == 1.0
    assert found.metrics["win_rate_vs_start/ppo_ptx/gold"] == 0.5


def test_ppo_that_kept_its_distribution_has_not_moved_whatever_the_judge_finds() -> None:
    assert "PPO has not moved" in run(ppo=3.0, init=2.0, kl=0.001).verdict
    assert "PPO has not moved" not in run(ppo=3.0, init=2.0, kl=0.5).verdict
    assert "PPO has not moved" not in run(ppo=1.0, init=2.0, kl=0.5).verdict, "it moved, and lost"


def test_a_base_model_that_beats_sft_comes_first() -> None:
    assert run(ppo=3.0, init=2.0, base=2.0).verdict.startswith("The base model, before any tuning, beats SFT (100.0 %")
    assert "The base model" not in run(ppo=3.0, init=2.0).verdict


@pytest.mark.parametrize(("prompts", "few"), [(99, True), (100, False)])
def test_fewer_than_a_hundred_prompts_are_too_few(prompts: int, few: bool) -> None:
    assert run(ppo=3.0, init=2.0, prompts=prompts).verdict.startswith(f"Too few prompts ({prompts}, fewer") is few


def test_a_judge_that_chose_the_weights_is_named_in_the_verdict_and_among_the_notes() -> None:
    found = run(ppo=3.0, init=2.0, ppo_ptx="gold")
    assert found.verdict.endswith("PPO-ptx's weights were chosen by this judge, so its figures are too good.")
    assert any("The gold labeler chose PPO-ptx's weights" in note for note in found.notes)
    other = run(ppo=3.0, init=2.0, sft="reward_model")
    assert "chosen by" not in other.verdict
    assert any("The reward model chose SFT's weights" in note for note in other.notes)
    assert not any("chose" in note for note in run(ppo=3.0, init=2.0).notes)


def test_requests_that_training_knows_are_left_out_beside_the_full_figure() -> None:
    golds = [3.0] * 60 + [0.0] * 60  # the first half wins, and is known from training
    known = set(range(60))

    def mark(found: PolicySheet) -> PolicySheet:
        rows = [row.model_copy(update={"repeats": place in known}) for place, row in enumerate(found.samples)]
        return found.model_copy(update={"samples": rows})

    sft = mark(sheet("sft", {d: four([1.0] * 120) for d in ("sampled", "greedy", "opponent")}))
    ppo = mark(sheet("ppo_ptx", {d: four(golds) for d in ("sampled", "greedy")}))
    found = compare_sheets({"sft": sft, "ppo_ptx": ppo}, CONFIG)
    assert found.metrics["win_rate/ppo_ptx/gold"] == 0.5
    assert found.metrics["win_rate_unseen/ppo_ptx/gold"] == 0.0
    assert any("60 of 120 test prompts make a request of a training prompt again" in note for note in found.notes)
