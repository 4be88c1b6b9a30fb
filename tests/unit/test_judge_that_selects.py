"""Who chooses the weights, or was optimised against, does not decide about them unnoticed."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from flows.config import load
from tasks.compare.task import _selection
from tasks.engine.errors import ConfigError, ModelError
from tasks.language.models import ScalarModel
from tasks.language.reward_folder import check_other_weights
from tests.unit import tiny_models


@pytest.mark.parametrize(("judge", "other"), [("gold", "independent"), ("independent", "gold")])
def test_the_judge_that_selects_may_not_decide_the_gate(judge: str, other: str) -> None:
    both = [f"ppo.selection={judge}", f"evaluation.gate.judge={judge}"]
    with pytest.raises(ConfigError, match=rf"ppo.selection and evaluation.gate.judge are both {judge}.*judge={other}"):
        load(both)
    load([f"ppo.selection={judge}", f"evaluation.gate.judge={other}"])
    load([f"evaluation.gate.judge={judge}"])
    nothing = [f"evaluation.gate.{name}=null" for name in ("min_win_rate", "min_win_rate_low")]
    with pytest.raises(ConfigError, match="are both"):  # it still compares with the champion
        load([*both, *nothing])
    load([*both, *nothing, "evaluation.gate.champion_margin=null"])


def test_a_copy_of_the_optimised_reward_model_is_no_independent_judge(tmp_path: Path) -> None:
    def save(name: str, seed: int) -> Path:
        model = ScalarModel.from_policy(tiny_models.policy(seed), torch.Generator().manual_seed(seed))
        model.save(tmp_path / name)
        return tmp_path / name

    first, other = save("first", 1), save("other", 2)
    shutil.copytree(first, tmp_path / "copy")
    check_other_weights(other, first)
    with pytest.raises(ModelError, match="holds the weights of the reward model that was optimised"):
        check_other_weights(tmp_path / "copy", first)


def test_the_comparison_learns_who_chose_the_weights(tmp_path: Path) -> None:
    (tmp_path / "sentinel.json").write_text(json.dumps({"selection": "gold"}))
    assert _selection(tmp_path) == "gold"
    assert _selection(tmp_path / "sft_selected") == "reward_model"
