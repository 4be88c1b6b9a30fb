"""Memory of a run whose ranks divide the networks, by hand, and the table of layouts."""

import pytest

from flows.ask.arithmetic.memory import FP32, GIB, StageMemory, gathered_bytes, stage_memory
from flows.ask.arithmetic.shapes import shapes_of
from flows.config import load
from flows.layouts import LAYOUTS, cell, config_of, seconds, table

WIDTH, LAYERS, TOKENS, PLACES = 2048, 24, 50257, 2048
LAYER = 12 * WIDTH**2
POLICY = LAYERS * (LAYER + 13 * WIDTH) + (TOKENS + PLACES) * WIDTH + 2 * WIDTH
"""GPT-2's parameters: matrices, biases and norms of a layer, both embeddings, the last norm."""
JUDGE = 32 * (12 * 4096**2 + 13 * 4096) + (TOKENS + PLACES) * 4096 + 2 * 4096 + 4096 + 1
SHARED = ("experiment=instructgpt_1_3b", "runtime.processes=8", "runtime.shard=full")


def stages(*overrides: str) -> dict[str, StageMemory]:
    config = load([*overrides])
    return {stage.stage: stage for stage in stage_memory(config, shapes_of(config), "bf16")}


def test_an_eighth_of_what_stays_is_on_each_of_eight() -> None:
    found = stages(*SHARED)
    assert found["sft"].state == 16 * POLICY // 8  # weights, gradients, two moments
    assert found["reward_model"].state == -(-16 * JUDGE // 8)
    # Policy 16 with its average, reference 4, reward model 4, value model 12, and the larger of their two gradients.
    ours = 16 * POLICY + 4 * POLICY + 4 * JUDGE + 12 * JUDGE + 4 * JUDGE
    alone = 4 * JUDGE if load([*SHARED]).independent_reward_model != "none" else 0
    assert found["ppo"].state == alone - (-ours // 8)


def test_a_layer_and_what_lies_outside_are_put_together() -> None:
    config = load([*SHARED])
    assert gathered_bytes(shapes_of(config).policy) == 2 * FP32 * (POLICY - 23 * LAYER)
    apart, whole = stages(*SHARED)["sft"], stages("experiment=instructgpt_1_3b")["sft"]
    assert apart.working == whole.working + 2 * FP32 * (POLICY - 23 * LAYER)


def test_what_does_not_fit_is_marked() -> None:
    fits = StageMemory("ppo", "bf16", 70 * GIB, 10 * GIB, "sampling")
    assert cell(fits, 80, 7200.0) == "80 (ppo), 2.0 h"
    assert cell(fits._replace(state=71 * GIB), 80, 7200.0) == "81 (ppo) does not fit"


def test_eight_cards_take_an_eighth_of_the_tokens_time() -> None:
    one, eight = (seconds(config_of("1.3B", layout)) for layout in (LAYOUTS[0], LAYOUTS[3]))
    assert 1 / 8 < eight / one < 1.1 / 8  # starting and optimizer steps are not divided


@pytest.mark.slow
def test_the_table_has_a_row_for_each_layout() -> None:
    lines = table().splitlines()
    assert len(lines) == 2 + len(LAYOUTS) and all(line.count("|") == 6 for line in lines)
