"""Where the reward model's trunk comes from."""

from pathlib import Path

import pytest
import torch

from tasks.engine.errors import ModelError
from tasks.language.models import load_policy, save_policy
from tasks.reward_model.body import body_folder
from tasks.reward_model.config import RewardModelConfig
from tests.unit import tiny, tiny_models


def saved(folder: Path, seed: int) -> Path:
    save_policy(tiny_models.policy(seed), tiny_models.tokenizer(), folder)
    return folder


def test_the_sft_model_unless_another_is_named(tmp_path: Path) -> None:
    sft, other = saved(tmp_path / "sft", 1), saved(tmp_path / "other", 2)
    for body, seed in ((None, 1), (str(other), 2)):
        loaded = load_policy(body_folder(body, sft, tiny_models.tokenizer()), "cpu")
        for found, expected in zip(loaded.parameters(), tiny_models.policy(seed).parameters(), strict=True):
            assert torch.equal(found, expected)


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    save_policy(tiny.llama(), tiny.word_tokenizer(), tmp_path / "foreign")
    with pytest.raises(
        ModelError, match=r"reward_model.body: the vocabulary of .*foreign differs .* expected the same"
    ):
        body_folder(str(tmp_path / "foreign"), tmp_path, tiny_models.tokenizer())


def test_a_body_counts_by_its_bytes(tmp_path: Path) -> None:
    def fields(folder: Path) -> object:
        given = tiny_models.settings("reward_model", body=str(folder))
        return RewardModelConfig.model_validate(given).fingerprint_fields()

    one, same, other = saved(tmp_path / "a", 1), saved(tmp_path / "b", 1), saved(tmp_path / "c", 2)
    assert fields(one) == fields(same) != fields(other)
