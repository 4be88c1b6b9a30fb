"""The ready recipes, on rows of the shape that their datasets have."""

from pathlib import Path
from typing import Any

import pytest

from tasks.data_prep.config import DataPrepConfig, HubRole
from tasks.language.plain_layout import PlainLayout
from tests.unit.data_prep.samples import read_hub, values

HH = {
    "chosen": "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: four",
    "rejected": "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: five",
}
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
WORSE = [CHAT[0], {"role": "assistant", "content": "no"}]
ANSWER = {"annotations": {"helpfulness": [{"Rating": "5"}]}, "critique": "fine", "custom_system_prompt": "x"}
ROWS: dict[str, dict[str, Any]] = {
    "Anthropic/hh-rlhf": HH,
    "roneneldan/TinyStories": {"text": "once"},
    "HuggingFaceH4/ultrachat_200k": {"prompt": "hi", "prompt_id": "1", "messages": CHAT},
    "openbmb/UltraFeedback": {
        "source": "flan",
        "instruction": "hi",
        "models": ["m1", "m2"],
        "completions": [
            ANSWER | {"model": "m1", "response": "yo", "overall_score": 7.5, "fine-grained_score": 4.75},
            ANSWER | {"model": "m2", "response": "no", "overall_score": 8.0, "fine-grained_score": 3.0},
        ],
        "correct_answers": ["None"],
    },
    "tatsu-lab/alpaca": {"instruction": "Add.", "input": "1 + 1", "output": "2", "text": "Below is ..."},
    "HuggingFaceH4/ultrafeedback_binarized": {
        "prompt": "hi",
        "chosen": CHAT,
        "rejected": WORSE,
        "score_chosen": 8.0,
        "score_rejected": 7.0,
    },
    "trl-lib/tldr": {"prompt": "POST: x\n\nTL;DR:", "completion": " y"},
    "trl-lib/tldr-preference": {"prompt": "POST: x\n\nTL;DR:", "chosen": " y", "rejected": " z"},
}
HH_PROMPT = "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"


@pytest.mark.parametrize(
    ("recipe", "demonstration", "comparison", "prompt"),
    [
        ("hh", (HH_PROMPT, "four"), (HH_PROMPT, ["four", "five"], [1, 2]), HH_PROMPT),
        ("ultrafeedback", ("hi", "yo"), ("hi", ["yo", "no"], [2, 1]), "hi"),
        ("alpaca", ("Add.\n\n1 + 1", "2"), ("hi", ["yo", "no"], [1, 2]), "Add.\n\n1 + 1"),
        ("hub", ("POST: x\n\nTL;DR:", " y"), ("POST: x\n\nTL;DR:", [" y", " z"], [1, 2]), "POST: x\n\nTL;DR:"),
    ],
)
def test_a_recipe_reads_its_datasets(
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    demonstration: tuple[str, str],
    comparison: tuple[str, list[str], list[int]],
    prompt: str,
) -> None:
    def load(_role: str, wanted: HubRole) -> list[dict[str, Any]]:
        return [ROWS[wanted.name]]

    monkeypatch.setattr("tasks.data_prep.sources.hub._load", load)
    config = DataPrepConfig(**values(recipe))
    assert config.hub is not None
    read = read_hub(config.hub, config.minimum_rows, PlainLayout(config.prompt_layout))
    assert [(item.prompt.text, item.response) for item in read.demonstrations] == [demonstration]
    assert [(item.prompt.text, item.completions, item.ranks) for item in read.comparisons] == [comparison]
    assert [item.text for item in read.rl_prompts] == [prompt]
    assert [item.text for item in read.documents] == ["once"]


def test_every_recipe_is_tried() -> None:
    folder = Path(__file__).parents[3] / "conf" / "data_prep"
    recipes = {path.stem for path in folder.glob("*.yaml") if "  - _hub\n" in path.read_text(encoding="utf-8")}
    assert recipes == {"hh", "ultrafeedback", "alpaca", "hub"}
