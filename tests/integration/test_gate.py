"""The gate, the registry and evaluations of other models, on one miniature pipeline with real Prefect and MLflow."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from transformers import AutoModelForCausalLM

from flows.config import RLHFConfig, load
from flows.evaluate import check as check_evaluation
from flows.evaluate import evaluate
from flows.rlhf import rlhf
from flows.run.promotion import GateFailed
from flows.run.summary import Outcome
from tasks.engine.errors import ConfigError, ModelError
from tests.integration.evaluations import damaged_model, evaluation, foreign_model

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.slow]

EASY, IMPOSSIBLE = "evaluation.gate.min_win_rate_low=0.0", "evaluation.gate.min_win_rate=1.0"
REGISTERED = "evaluation.gate.model_name=policy"


def miniature(root: Path, *overrides: str) -> RLHFConfig:
    return load(["scale=miniature", "runtime.progress=false", f"tracking.root={root}", *overrides])


def ran(stages: object) -> list[str]:
    return [record.stage for record in stages if record.ran]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def passed(root: Path, prefect_api: str) -> Outcome:
    return rlhf(miniature(root, EASY, REGISTERED))


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def test_a_policy_that_passes_is_released_and_becomes_champion(passed: Outcome, root: Path) -> None:
    assert passed.version == "1" and passed.release is not None
    champion = client(root).get_model_version_by_alias("policy", "champion")
    assert champion.source == Path(passed.release).as_uri() and champion.run_id == passed.run_id
    assert champion.tags["policy/win_rate_gold"] == f"{passed.metrics['policy/win_rate_gold']:.6g}"
    released, trained = AutoModelForCausalLM.from_pretrained(passed.release), Path(passed.policy)
    assert released.num_parameters() > 0
    for name in ("model.safetensors", "tokenizer.json"):
        assert (Path(passed.release) / name).read_bytes() == (trained / name).read_bytes()
    assert client(root).get_run(passed.run_id).data.tags["plumbline.gate"] == "passed"
    card = (Path(passed.release) / "README.md").read_text()
    assert card.startswith("---\n") and passed.comparison.verdict in card and "SHA-256" in card


def test_the_command_on_the_card_finds_every_result(passed: Outcome, root: Path) -> None:
    card = Path(str(passed.release)) / "README.md"
    (line,) = [line for line in card.read_text().splitlines() if "--config-dir" in line]
    assert line == "python -m flows.rlhf --config-dir <this folder> --config-name plumbline"
    command = [sys.executable, *line.replace("<this folder>", str(card.parent)).split()[1:]]
    done = subprocess.run(
        [*command, f"tracking.root={root}", "--explain"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "0 of 15 stages will run" in done.stdout, done.stdout


def test_a_second_run_registers_nothing_new(passed: Outcome, root: Path) -> None:
    again = rlhf(miniature(root, EASY, REGISTERED))
    assert ran(again.stages) == [] and again.version == "1"
    assert len(client(root).search_model_versions("name = 'policy'")) == 1


def test_a_failed_gate_names_the_state_leaves_the_alias_and_keeps_the_results(passed: Outcome, root: Path) -> None:
    with pytest.raises(GateFailed, match=r"failed 2 of 4 checks: win rate against SFT, sampled, by gold") as caught:
        rlhf(miniature(root, EASY, IMPOSSIBLE, REGISTERED))
    outcome: Outcome = caught.value.outcome
    assert ran(outcome.stages) == ["gate-ppo_ptx"] and outcome.release is None and outcome.version is None
    assert outcome.metrics["gate/passed"] == 0.0 and (Path(outcome.report) / "report.html").is_file()
    with get_client(sync_client=True) as prefect:
        named = FlowRunFilterState(name=FlowRunFilterStateName(any_=["GateFailed"]))
        (flow_run,) = prefect.read_flow_runs(flow_run_filter=FlowRunFilter(state=named))
    assert flow_run.state is not None and flow_run.state.is_failed()
    assert flow_run.state.message == str(caught.value)
    run = client(root).get_run(outcome.run_id)
    assert run.data.tags["plumbline.gate"] == "failed" and "failed 2 of 4" in run.data.tags["plumbline.gate_reason"]
    assert run.data.metrics["gate/passed"] == 0.0
    assert run.data.metrics["policy/win_rate_gold"] == passed.metrics["win_rate/ppo_ptx/gold"]
    assert str(client(root).get_model_version_by_alias("policy", "champion").version) == "1"


def test_the_command_line_ends_with_status_3_and_the_reason(
    passed: Outcome, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["scale=miniature", "runtime.progress=false", f"tracking.root={root}", EASY, IMPOSSIBLE, REGISTERED]
    monkeypatch.setattr(sys, "argv", ["flows.rlhf", *arguments])
    statuses: list[int] = []  # of the process if it does not end in time; this one goes on with the next test
    monkeypatch.setattr("flows.process.deadline.Deadline.begin", lambda _, status: statuses.append(status))
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("flows.rlhf", run_name="__main__")
    assert ended.value.code == 3 and statuses == [3]
    said = capsys.readouterr()
    assert "evaluation.gate.min_win_rate" in said.err and "PPO-ptx, greedy" in said.out


def test_the_sentinels_warnings_are_on_every_page(root: Path, passed: Outcome) -> None:
    sensitive = ["ppo.episodes=160", "ppo.sentinel.window=2", "ppo.sentinel.length_factor=1.0001"]
    outcome = rlhf(miniature(root, *sensitive))
    (warning,) = [item for item in outcome.warnings if "responses became" in item]
    assert warning.startswith("ppo_ptx, iteration ")
    assert "sentinel.ppo_ptx.length_drift" in client(root).get_run(outcome.run_id).data.tags
    stages = client(root).search_runs(["1"], f"tags.`mlflow.parentRunId` = '{outcome.run_id}'", max_results=100)
    (ppo,) = [stage for stage in stages if stage.data.tags["plumbline.stage"] == "ppo_ptx"]
    assert "responses became" in ppo.data.tags["sentinel.length_drift"]
    history = [point.value for point in client(root).get_metric_history(ppo.info.run_id, "sentinel/length_drift")]
    assert history[:3] == [0.0, 0.0, 0.0] and 1.0 in history
    assert {"objective/score_gold", "objective/score_independent"} <= ppo.data.metrics.keys()
    with get_client(sync_client=True) as prefect:
        pages = prefect.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["sentinel-ppo-ptx"])))
    assert any("**length_drift**" in str(page.data) for page in pages)


def test_an_identical_policy_passes_a_budget_of_no_worse_than(passed: Outcome, root: Path) -> None:
    sft = next(root.glob("artifacts/sft/*/policy"))
    no_worse = ["min_win_rate_low=0.2", "max_regression_vs_sft=0.0", "max_toxicity_change=0.0"]
    budget = [f"evaluation.gate.{limit}" for limit in no_worse]
    outcome = evaluate(evaluation(root, f"policy={sft}", f"data={passed.run_id}", *budget))
    assert outcome.metrics["gate/passed"] == 1.0 and outcome.gate == "gate: policy passed all 4 checks"
    assert outcome.metrics["benchmark/policy/change_vs_sft"] == 0.0
    assert outcome.metrics["win_rate/policy_greedy/gold"] == 0.5
    assert outcome.metrics["kl/policy"] == outcome.metrics["kl/sft"]


def test_a_damaged_policy_breaks_the_budget_that_its_original_keeps(
    passed: Outcome, root: Path, tmp_path: Path
) -> None:
    damaged = damaged_model(next(root.glob("artifacts/sft/*/policy")), tmp_path / "damaged", noise=2.0)
    no_worse = ["min_win_rate_low=0.2", "max_regression_vs_sft=0.0", "max_toxicity_change=0.0"]
    budget = [f"evaluation.gate.{limit}" for limit in [*no_worse, "model_name=policy"]]
    with pytest.raises(GateFailed, match="gate: policy failed") as caught:
        evaluate(evaluation(root, f"policy={damaged}", f"data={passed.run_id}", *budget))
    assert caught.value.outcome.metrics["gate/passed"] == 0.0 and caught.value.outcome.version is None
    assert (Path(caught.value.outcome.report) / "report.html").is_file()
    assert str(client(root).get_model_version_by_alias("policy", "champion").version) == "1"


def test_two_foreign_models_are_compared_without_a_pipeline(passed: Outcome, root: Path, tmp_path: Path) -> None:
    """Nothing but the gold labeler scores them: no reward model, no reference."""
    sft, damaged = next(root.glob("artifacts/sft/*/policy")), tmp_path / "damaged"
    damaged_model(sft, damaged, noise=0.1)
    data = f"data={next(root.glob('artifacts/data_prep/*')).relative_to(root / 'artifacts').as_posix()}"
    outcome = evaluate(evaluation(root, f"policy={damaged}", f"baseline={sft}", data))
    assert outcome.comparison.judges == ["gold"] and 0.0 < outcome.metrics["win_rate/policy/gold"] < 1.0


def test_a_foreign_model_is_measured_with_its_own_tokenizer(passed: Outcome, root: Path, tmp_path: Path) -> None:
    folder = foreign_model(tmp_path / "gpt2")
    outcome = evaluate(evaluation(root, f"policy={folder}", f"data={passed.run_id}"))
    row = outcome.comparison.row("policy")
    assert row is not None
    assert row.kl is None and row.perplexity_ratio is None and row.benchmark is not None
    assert {"gold", "reward_model", "independent"} <= set(row.scores)
    assert any("policy: no KL" in note for note in outcome.comparison.notes)
    lines = next(root.glob("artifacts/evaluation-policy/*/samples.jsonl")).parent.parent.glob("*/samples.jsonl")
    texts = [
        json.loads(line)["responses"]["sampled"]["text"] for path in lines for line in path.read_text().splitlines()
    ]
    assert any("<unk>" not in text and len(text) > 8 for text in texts)


def test_data_can_be_prepared_for_a_foreign_model_alone(passed: Outcome, root: Path, tmp_path: Path) -> None:
    folder = foreign_model(tmp_path / "gpt2")
    tiny = ["documents=200", "demonstrations=20", "comparison_prompts=20", "rl_prompts=20", "test_prompts=10"]
    sizes = [f"data_prep.sandbox.{size}" for size in tiny]
    longer = ["data_prep.prompt_tokens=160", "data_prep.response_tokens=64", "evaluation.context_tokens=200"]
    outcome = evaluate(evaluation(root, f"policy={folder}", *sizes, *longer))
    assert [row.key for row in outcome.comparison.rows] == ["sft", "sft_greedy"]
    assert outcome.comparison.judges == ["gold"]


def test_mistakes_are_named_before_anything_runs(passed: Outcome, root: Path, tmp_path: Path) -> None:
    sft = next(root.glob("artifacts/sft/*/policy"))
    for overrides, kind, message in (
        ([f"policy={tmp_path}", f"data={passed.run_id}"], ModelError, r"policy: .*found no config\.json"),
        ([f"policy={sft}", "data=nowhere"], ConfigError, "nowhere is no pipeline run"),
        ([f"policy={sft}", f"data={passed.run_id}", "evaluation.response_tokens=99"], ModelError, "reads 64 tokens"),
        (
            [f"policy={sft}", f"data={passed.run_id}", "evaluation.context_tokens=60"],
            ModelError,
            "evaluation.context_tokens=56",
        ),
    ):
        with pytest.raises(kind, match=message):
            check_evaluation(evaluation(root, *overrides))
    with pytest.raises(ConfigError, match="policy: no value"):
        evaluation(root)
