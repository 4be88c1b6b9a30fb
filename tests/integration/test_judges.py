"""The command lines around the judges: what is checked before a run, agreement with people, how a run is repeated."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from flows import agreement
from flows.ask.preflight import check
from flows.config import load
from flows.run.reproduce import command_of, differences, results_config
from tasks.engine.errors import PlumblineError
from tests.unit.chat.chat_server import longer_wins, serving

CHAT = ["evaluation/judges=chat", "evaluation.judges.chat.model=judge-1"]


def test_a_chat_judge_is_checked_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_TEST_KEY", raising=False)
    with serving(longer_wins) as server:
        chosen = [f"tracking.root={tmp_path}", *CHAT, f"evaluation.judges.chat.base_url={server.url}"]
        with pytest.raises(PlumblineError, match="the environment variable PLUMBLINE_TEST_KEY is not set"):
            check(load([*chosen, "evaluation.judges.chat.api_key_env=PLUMBLINE_TEST_KEY"]))
        check(load([*chosen, "evaluation.judges.chat.api_key_env=null"]))
        gone = [*chosen, "evaluation.judges.chat.api_key_env=null"]
    with pytest.raises(PlumblineError, match="does not answer"):
        check(load(gone))


def test_a_model_must_be_named() -> None:
    with pytest.raises(PlumblineError, match=r"evaluation\.judges\.chat\.model: no value"):
        load(["evaluation/judges=chat"])


def test_verdicts_and_a_second_reward_model_are_checked_before_any_work(tmp_path: Path) -> None:
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text('{"verdict": "a"}\n')
    with pytest.raises(PlumblineError, match=r"verdicts\.jsonl:1: 'annotator': Field required"):
        check(load([f"tracking.root={tmp_path}", f"evaluation.judges.human_verdicts={verdicts}"]))
    with pytest.raises(PlumblineError, match=r"has no config\.json and no scalar_head\.safetensors"):
        check(load([f"tracking.root={tmp_path}", f"evaluation.judges.independent_reward_model={tmp_path}"]))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["scale=miniature", "seed=4", "ppo.beta=0.05"],
        ["evaluation.best_of_n=[]", "evaluation.toxicity.scorer=none", "evaluation.gate.max_toxicity_change=null"],
        [
            "data_prep=own_data",
            "comparisons=own_data",
            "model.context_tokens=2048",
            "data_prep.folder='an {odd} \\\\\\' name: a=b, c\\\\'",
        ],
        [*CHAT, "evaluation.judges.chat.api_key_env=null"],
    ],
)
def test_the_command_makes_the_same_run(overrides: list[str]) -> None:
    config = load(overrides)
    command = shlex.split(command_of(config))
    assert command[:3] == ["python", "-m", "flows.rlhf"]
    assert results_config(load(command[3:])) == results_config(config)


def test_places_and_speed_are_not_part_of_the_command(tmp_path: Path) -> None:
    config = load([f"tracking.root={tmp_path}", "runtime.max_workers=1", "seed=2"])
    assert "seed=2" in differences(config)
    assert str(tmp_path) not in command_of(config)
    assert not {"tracking", "runtime"} & results_config(config).keys()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["agreement", *arguments])
    agreement.main()


def test_agreement_of_a_judge_with_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": "why ?", "completion_a": "long answer", "completion_b": "short"}
    rows = [{**row, "prompt": f"why {i} ?", "labels": {"kim": "a", "lee": "b" if i else "a"}} for i in range(4)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    run(monkeypatch, str(path))
    drawn = capsys.readouterr().out
    assert "25.0 %" in drawn  # people with each other: 1 of 4
    assert "62.5 %" in drawn  # the longer response with each person: 5 of 8
    with serving(longer_wins) as server:
        where = [f"tracking.root={tmp_path}", f"evaluation.judges.chat.base_url={server.url}"]
        chosen = [*where, "evaluation.judges.chat.model=judge-1", "evaluation.judges.chat.api_key_env=null"]
        run(monkeypatch, str(path), "--judge", "chat", *chosen)
        assert len(server.requests) == 8
    assert "62.5 %" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: cannot read"):
        run(monkeypatch, str(tmp_path / "none.jsonl"))
