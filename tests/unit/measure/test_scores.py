from pathlib import Path

import pytest
import torch

from tasks.engine.errors import ModelError
from tasks.language.models import ScalarModel
from tasks.language.reward_folder import check_reward_model, load_reward_model
from tasks.measure.scores import RewardModelJudge
from tasks.records.records import Prompt
from tasks.results.judge import Answers
from tests.unit import tiny_models


def reward_model(seed: int) -> ScalarModel:
    return ScalarModel.from_policy(tiny_models.policy(seed), torch.Generator().manual_seed(seed))


def test_a_reward_model_survives_the_disk_and_scores_the_same_whatever_the_batching(tmp_path: Path) -> None:
    model = reward_model(3)
    model.save(tmp_path)
    check_reward_model(tmp_path)
    loaded = load_reward_model(tmp_path, "cpu", tiny_models.tokenizer())
    answers = Answers([[5, 6], [7], [5, 6, 7]], [[8, 9, 1], [8], [9, 9]], ["a", "b", "c"], [True, False, False])
    prompts = [Prompt(prompt_id=str(i), owner_id="o", text="t") for i in range(3)]
    one_by_one = RewardModelJudge("independent", loaded, 0, tiny_models.runtime(tokens_per_microbatch=6)).score(
        prompts, answers
    )
    together = RewardModelJudge("reward_model", model, 0, tiny_models.runtime(tokens_per_microbatch=1000)).score(
        prompts, answers
    )
    assert one_by_one == pytest.approx(together, abs=1e-5)
    assert len(set(together)) == 3


def test_a_folder_without_a_reward_model_and_another_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json and no scalar_head\.safetensors"):
        check_reward_model(tmp_path)
    reward_model(3).save(tmp_path)
    larger = tiny_models.tokenizer()
    larger.add_tokens(["plumbline"])
    with pytest.raises(ModelError, match=rf"gives text ids up to {len(tiny_models.WORDS)}"):
        load_reward_model(tmp_path, "cpu", larger)


def test_padding_that_was_added_behind_the_last_id_needs_no_row(tmp_path: Path) -> None:
    reward_model(3).save(tmp_path)
    padded = tiny_models.tokenizer()
    padded.add_special_tokens({"pad_token": "<|pad|>"})
    assert padded.pad_token_id == len(tiny_models.WORDS)
    load_reward_model(tmp_path, "cpu", padded)
