"""What the embedded world is asked for beside sizes reaches every role of its prompts."""

from typing import Any

import pytest

from tasks.data_prep.config import SandboxConfig
from tasks.data_prep.sources.sandbox import read_sandbox
from tasks.records.records import Prompt
from tests.shipped import shipped

FEW = {
    "documents": 5,
    "demonstrations": 60,
    "comparison_prompts": 60,
    "rl_prompts": 60,
    "test_prompts": 60,
    "benchmark_items_per_task": 1,
    "toxicity_prompts": 1,
}


def roles(**changes: Any) -> list[list[Prompt]]:
    rows = read_sandbox(SandboxConfig.model_validate(shipped("data_prep", "sandbox")["sandbox"] | FEW | changes), 1)
    return [
        [shown.prompt for shown in rows.demonstrations], rows.comparison_prompts, rows.rl_prompts, rows.test_prompts
    ]  # fmt: skip


def test_a_share_of_every_role_is_ambiguous() -> None:
    for prompts in roles(ambiguous_share=0.6):
        assert 8 <= sum(prompt.kind == "ambiguous" for prompt in prompts) <= 30
    assert not [prompt for prompts in roles() for prompt in prompts if prompt.kind == "ambiguous"]


@pytest.mark.parametrize(("naming", "named"), [("named", 30), ("unnamed", 0), ("none", 0)])
def test_every_role_has_prompts_of_both_groups(naming: str, named: int) -> None:
    for prompts in roles(labeler_groups=naming):
        assert sum(prompt.text.startswith("teacher : q : ") for prompt in prompts) == named
        assert sum(prompt.metadata.get("group") == "sailor" for prompt in prompts) == (30 if naming != "none" else 0)
