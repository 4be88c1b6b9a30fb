"""What a run of several rounds tells: the sentinel's warnings of every round, and the last round's figures under plain names."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.run import summary, warnings
from tasks.engine.artifacts import ArtifactRef
from tasks.ppo.watch_report import SentinelWarning, WatchReport


def report(*warned: str) -> WatchReport:
    found = [
        SentinelWarning(rule=rule, first_iteration=3, last_iteration=4, found=2.0, limit=1.0, reason=f"{rule} is far")
        for rule in warned
    ]
    return WatchReport(
        judges=[],
        rules=["kl_speed"],
        warnings=found,
        iterations=9,
        planned_iterations=9,
        stopped_early=False,
        selection="last",
        selected_iteration=9,
    )


def test_a_warning_of_an_earlier_round_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: dict[str, str] = {}
    tags: dict[str, str] = {}
    monkeypatch.setattr(
        warnings, "create_markdown_artifact", lambda key, markdown, description: pages.update({key: description})
    )
    monkeypatch.setattr(warnings, "open_run", lambda uri, run: SimpleNamespace(tags=tags.update))
    for stage, found in (("ppo_ptx", report("kl_speed")), ("ppo_ptx-round_2", report())):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "sentinel.json").write_text(found.model_dump_json())
    run: Any = SimpleNamespace(
        store=SimpleNamespace(open=lambda ref: tmp_path / ref),
        context=SimpleNamespace(tracking_uri="uri"),
        run_id="id",
        futures={
            stage: SimpleNamespace(result=lambda stage=stage: stage) for stage in ("sft", "ppo_ptx-round_2", "ppo_ptx")
        },
    )
    assert warnings.publish_warnings(run, ["ppo_ptx"]) == ["ppo_ptx, iteration 3: kl_speed is far"]
    assert list(pages) == ["sentinel-ppo-ptx", "sentinel-ppo-ptx-round-2"]
    assert tags == {"sentinel.ppo_ptx.kl_speed": "kl_speed is far"}


def test_the_headline_is_the_last_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text('{"rows": [], "source": "sandbox"}')
    comparison = SimpleNamespace(metrics={"win_rate/ppo_ptx/gold": 0.6, "kl/ppo_ptx": 1.5}, verdict="it wins")
    for name in ("create_table_artifact", "create_markdown_artifact", "markdown_table"):
        monkeypatch.setattr(summary, name, lambda *_, **__: "")
    monkeypatch.setattr(summary, "policy_table", lambda *_: SimpleNamespace(rows=[], headings=[]))
    monkeypatch.setattr(summary.PolicyComparison, "model_validate_json", lambda _: comparison)
    (tmp_path / summary.COMPARISON).write_text("{}")
    refs = [
        ArtifactRef(stage=stage, fingerprint="f", digest="d")
        for stage in ("evaluation", "ppo_ptx-round_3", "data_prep")
    ]
    store: Any = SimpleNamespace(open=lambda ref: tmp_path)
    outcome = summary.outcome_of(store, *refs, [], "id")
    assert outcome.metrics["policy/win_rate_gold"] == 0.6 and outcome.metrics["policy/kl"] == 1.5
