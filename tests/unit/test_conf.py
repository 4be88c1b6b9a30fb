"""``conf/``: the paper's values are the base, the embedded world is what differs, and one recipe switches between them."""

from typing import Any

import pytest
import yaml

from tests.shipped import CONF, shipped

ON_PAPER = ["sft", "ppo_init", "comparisons", "reward_model", "ppo", "dpo"]


def leaves(values: dict[str, Any], *path: str) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in values.items():
        found |= leaves(value, *path, key) if isinstance(value, dict) else {(*path, key): value}
    return found


@pytest.mark.parametrize("group", ON_PAPER)
def test_the_sandbox_lists_only_what_differs_from_the_paper(group: str) -> None:
    own = yaml.safe_load((CONF / group / "sandbox.yaml").read_text())
    assert own.pop("defaults") == ["paper", "_self_"]
    paper = leaves(shipped(group, "paper"))
    for path, value in leaves(own).items():
        assert path in paper, f"{group}: {'.'.join(path)} is not in paper.yaml"
        assert value != paper[path], f"{group}: {'.'.join(path)} repeats paper.yaml"


def test_every_recipe_chooses_for_the_same_groups_and_experiments_switch_the_recipe() -> None:
    chosen = {}
    for path in sorted((CONF / "recipe").glob("*.yaml")):
        text = path.read_text()
        assert text.startswith("# @package _global_\n")
        chosen[path.stem] = [next(iter(entry)) for entry in yaml.safe_load(text)["defaults"]]
    assert chosen["sandbox"] == chosen["paper"] and len(chosen["paper"]) == 10
    for name in ("own_data", "own_data_from_scratch", "instructgpt_1_3b"):
        experiment = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
        assert experiment["defaults"][0] == {"override /recipe": "paper"}


def test_own_data_and_the_paper_are_two_words() -> None:
    """own_data: where the data comes from and what it lacks; paper: published values."""
    assert {path.parent.name for path in CONF.glob("*/own_data.yaml")} == {
        "data_prep",
        "comparisons",
        "evaluation",
        "experiment",
    }
    assert {path.parent.name for path in CONF.glob("*/paper.yaml")} == {*ON_PAPER, "recipe"}
    assert shipped("comparisons", "own_data") == shipped("comparisons", "paper") | {"source": "given"}
