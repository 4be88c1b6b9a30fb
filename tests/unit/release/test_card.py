"""The model card on hand-made results: the hub can read it, and it says what the artifacts say."""

import pytest
from huggingface_hub import ModelCard

from flows.config import load
from tasks.compare.compare import compare_sheets
from tasks.release.card import CardInputs, model_card
from tasks.release.config import ReleaseJob
from tasks.results.decision import GateCheck, GateDecision
from tests.unit.results.sheets import evaluation_config, trio

CHECK = GateCheck(
    limit_name="min_win_rate",
    metric="win_rate/ppo_ptx/gold",
    found=0.7,
    limit=0.5,
    passed=True,
    reason="win rate against SFT, sampled, by gold: 70.0 %, expected at least 50.0 %",
)


def inputs(*, checks: list[GateCheck], base_model: str = "") -> CardInputs:
    config = load(["ppo.beta=0.125"])
    return CardInputs(
        policy="ppo_ptx",
        job=ReleaseJob(
            title="my-policy", base_model=base_model, settings=config.model_dump(mode="json", exclude={"runtime"})
        ),
        comparison=compare_sheets(trio(), evaluation_config(best_of_n=[4], bootstrap_samples=400)),
        decision=GateDecision(policy="ppo_ptx", passed=True, checks=checks),
        audit={
            "source": "my data",
            "rows": [
                {"role": "demonstrations", "split": "train", "read": 12, "kept": 11},
                {"role": "comparisons", "split": "train", "read": 0, "kept": 0},
            ],
        },
        warnings=["the gold score fell"],
        digests={"data": "aaaa", "reward_model": "bbbb"},
        weights={"model.safetensors": "cccc"},
    )


@pytest.fixture(scope="module")
def card() -> str:
    return model_card(inputs(checks=[CHECK], base_model="org/model"))


def test_the_front_matter_is_the_hubs(card: str) -> None:
    data = ModelCard(card).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("org/model", "transformers", "text-generation")
    figures = {result.metric_name: result.metric_value for result in data.eval_results}
    # trio: sampled [2, 2, 2, 0] against [1, 1, 1, 1] wins 3 of 4; greedy [2, 3, 2, 1] against [2, 2, 1, 1]: 2 wins, 2 ties
    assert figures["win rate against SFT, T = 1, gold labeler"] == 75.0
    assert figures["win rate against SFT, greedy, gold labeler"] == 75.0


@pytest.mark.parametrize(
    "text",
    [
        "| `ppo.beta` | 0.125 |",
        "| `sft.adam.learning_rate` |",
        "Source: my data.",
        "| demonstrations | train | 12 | 11 |",
        CHECK.reason,
        "Warning during PPO: the gold score fell.",
        "Toxicity was scored by sandbox_words alone",
        "| `model.safetensors` | `cccc` |",
        "| artifact reward_model | `bbbb` |",
        "It started from `org/model`",
        "PPO-ptx: PPO with pretraining gradients",
        "python -m flows.rlhf --config-dir",
    ],
)
def test_the_card_says(card: str, text: str) -> None:
    assert text in card


def test_what_is_empty_is_left_out(card: str) -> None:
    assert "| comparisons | train |" not in card


def test_a_model_from_scratch_and_no_budget() -> None:
    card = model_card(inputs(checks=[]))
    assert "base_model" not in card.split("---")[1]
    assert "a base model of its own" in card and "No budget was declared" in card


def test_equal_inputs_give_equal_cards(card: str) -> None:
    assert model_card(inputs(checks=[CHECK], base_model="org/model")) == card
