"""A champion is measured as the run's own policies were: the same judges, the same data."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.config import load
from flows.instructgpt import instructgpt
from flows.run import promotion
from tasks.engine.registry import Champion
from tests.unit.run.test_rounds import Recorder

GATED = ["evaluation.gate.model_name=policy", "evaluation.gate.champion_margin=0.1"]
REVISED = ["revise.prompts=5", "revise.chat.model=m", "revise.chat.api_key_env=null"]

SFT_STARTS = ["ppo_init.epochs=${sft.epochs}", "ppo_init.pretraining_fraction=0"]


class Recording(Recorder):
    """A recorder with what a pipeline has beside its calls."""

    futures: dict[str, str]
    store = None
    context = SimpleNamespace(tracking_uri="")

    def __init__(self) -> None:
        super().__init__()
        self.futures = {}

    def __call__(self, task: Any, group: str, config: Any, about: str = "", **inputs: str) -> str:
        stage = super().__call__(task, group, config, about, **inputs)
        self.futures[stage] = stage
        return stage

    def finished(self, stage: str) -> str:
        return stage


@pytest.mark.parametrize(
    "overrides",
    [[], REVISED, [*REVISED, "rounds=2"], ["reward_ensemble=2"], ["rounds=2", "reward_ensemble=2"], SFT_STARTS],
    ids=lambda overrides: " ".join(overrides) or "shipped",
)
def test_the_champion_is_measured_like_the_candidate(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    champion = Champion(folder=Path("elsewhere"), weights="theirs")
    monkeypatch.setattr(promotion, "champion_of", lambda *_: champion)
    monkeypatch.setattr(promotion, "weights_of", lambda *_: "own")
    config, run = load([*GATED, *overrides]), Recording()
    _, policy = instructgpt(config, run)
    sheets = promotion.champion_stages(run, config, policy)  # type: ignore[arg-type]
    theirs, own = (dict(run.inputs[sheets[side]]) for side in ("champion", "candidate"))
    assert theirs.pop("policy") == "adopted-champion" and own.pop("policy").startswith("ppo_ptx")
    assert theirs == own
    assert own["data"] == ("revise" if REVISED[0] in overrides else "data_prep")


def test_a_card_tells_of_the_data_that_was_read() -> None:
    config, run = load(REVISED), Recording()
    report, policy = instructgpt(config, run)
    promotion.release_stage(run, config, report, policy, "gate")
    assert run.inputs["release-ppo_ptx"]["data"] == "revise"
