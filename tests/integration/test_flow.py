"""The whole flow on the miniature configuration, with a real Prefect server and a real MLflow database."""

import json
import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.ask.explain import CACHED, plan_of
from flows.config import RLHFConfig, load
from flows.process.environment import PROJECT
from flows.rlhf import rlhf
from flows.run.nothing_new import NOTHING_NEW
from flows.run.promotion import GateFailed
from flows.run.summary import Outcome
from tasks.engine.errors import PlumblineError

pytestmark = pytest.mark.usefixtures("prefect_api")


def miniature(root: Path, *overrides: str) -> RLHFConfig:
    return load(["scale=miniature", "runtime.progress=false", f"tracking.root={root}", *overrides])


def ran(outcome: Outcome) -> list[str]:
    return [record.stage for record in outcome.stages if record.ran]


def explained(config: RLHFConfig) -> list[str]:
    return [plan.stage for plan in plan_of(config) if plan.state != CACHED]


def record_of(outcome: Outcome, stage: str) -> str:
    return next(record.artifact for record in outcome.stages if record.stage == stage)


def digests(root: Path) -> dict[str, str]:
    manifests = [json.loads(path.read_text()) for path in root.glob("artifacts/*/*/manifest.json")]
    return {f"{item['stage']}/{item['fingerprint']}": item["digest"] for item in manifests}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def first(root: Path, prefect_api: str) -> Outcome:
    return rlhf(miniature(root))


def test_every_stage_runs_and_leaves_a_policy_a_report_and_metrics(first: Outcome) -> None:
    assert ran(first) == [record.stage for record in first.stages]
    assert {"data_prep", "pretrain", "sft", "ppo_init", "comparisons", "reward_model", "ppo_ptx"} <= set(ran(first))
    files = {path.name for path in Path(first.policy).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert "<html" in (Path(first.report) / "report.html").read_text()
    names = {"win_rate/ppo_ptx/gold", "win_rate/ppo_ptx_greedy/gold", "kl/ppo_ptx", "policy/win_rate_gold"}
    assert names <= set(first.metrics)


def test_mlflow_holds_one_parent_one_child_per_stage_and_the_curves(first: Outcome, root: Path) -> None:
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    parent = client.get_run(first.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["ppo.beta"] == str(load(["scale=miniature"]).ppo.beta)
    assert parent.data.metrics["policy/win_rate_gold"] == first.metrics["win_rate/ppo_ptx/gold"]
    assert "report.html" in [item.path for item in client.list_artifacts(first.run_id)]
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{first.run_id}'", max_results=100
    )
    by_stage = {child.data.tags["plumbline.stage"]: child for child in children}
    assert set(by_stage) == {record.stage for record in first.stages}
    assert all(child.info.status == "FINISHED" for child in children)
    ppo = by_stage["ppo_ptx"]
    assert [point.step for point in client.get_metric_history(ppo.info.run_id, "objective/kl")] == [1, 2]
    assert ppo.data.tags["input.reward_model"] == by_stage["reward_model"].data.tags["digest"]
    assert by_stage["data_prep"].inputs.dataset_inputs


def documented() -> list[str]:
    """The names in docs/metrics.md as regular expressions; `_low` after a name is its interval's end."""
    found = []
    for line in (PROJECT / "docs" / "metrics.md").read_text().splitlines():
        names = re.findall("`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else []
        found += [names[index - 1] + name if name.startswith("_") else name for index, name in enumerate(names)]
    patterns = [re.sub("<[^>]+>", "[^/]+", re.escape(name).replace(r"\*", ".*")) for name in found]
    return [f"(final/)?{pattern}(_low|_high|_held_out)?" for pattern in patterns]


def test_every_metric_is_on_the_page_of_metrics(first: Outcome, root: Path) -> None:
    runs = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").search_runs(["1"])
    logged = {name for run in runs for name in run.data.metrics}
    patterns = documented()
    assert len(logged) > 300
    missing = sorted(name for name in logged if not any(re.fullmatch(one, name) for one in patterns))
    assert not missing, "\n".join(missing)


def test_a_second_run_executes_nothing(first: Outcome, root: Path) -> None:
    again = rlhf(miniature(root))
    assert ran(again) == []
    assert again.metrics == first.metrics
    assert again.run_id != first.run_id


def test_a_second_run_is_skipped_if_that_is_wanted(first: Outcome, root: Path) -> None:
    state = rlhf(miniature(root, "tracking.skip_when_nothing_new=true"), return_state=True)
    assert (state.name, state.type.value) == (NOTHING_NEW, "COMPLETED")


def test_runtime_settings_execute_nothing(first: Outcome, root: Path) -> None:
    assert ran(rlhf(miniature(root, "runtime.tokens_per_microbatch=500", "runtime.checkpoint_every=3"))) == []


def test_beta_reruns_ppo_and_its_evaluation_alone_as_was_explained(first: Outcome, root: Path) -> None:
    assert explained(miniature(root)) == []
    changed = miniature(root, "ppo.beta=0.5")
    expected = explained(changed)
    promotion = ["gate-ppo_ptx", "release-ppo_ptx"]
    assert ran(rlhf(changed)) == expected == ["ppo_ptx", "evaluation-ppo_ptx", "evaluation", *promotion]


def test_missing_and_damaged_artifacts_are_named_and_rebuilt_with_the_same_digest(
    first: Outcome, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = digests(root)
    next(root.glob("artifacts/evaluation-base/*/sheet.json")).unlink()
    [damaged] = root.glob(f"artifacts/{record_of(first, 'sft')}/policy/model.safetensors")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # of equal size
    shutil.rmtree(root / "artifacts" / record_of(first, "comparisons"))
    assert ran(rlhf(miniature(root))) == ["sft", "comparisons", "evaluation-base"]
    assert f"{record_of(first, 'sft')}: file policy/model.safetensors has digest" in caplog.text
    assert digests(root) == before and damaged.read_bytes() == whole


def test_the_sft_epoch_can_be_chosen_by_the_reward_model(first: Outcome, root: Path) -> None:
    outcome = rlhf(miniature(root, "sft.selection=reward_model", "sft.epochs=2"))
    assert {"sft", "sft_selected", "evaluation-sft"} <= set(ran(outcome))
    assert "ppo_init" not in ran(outcome)


def test_a_model_folder_is_adopted_instead_of_trained(first: Outcome, root: Path) -> None:
    folder = next(root.glob("artifacts/pretrain/*/policy"))
    adopted = ["model=pretrained", f"model.name_or_path={folder}", "model.context_tokens=64", "model.architecture=null"]
    outcome = rlhf(miniature(root, *adopted, "pretrain=none", "pretrain.row_tokens=32"))
    assert {"data_prep", "pretrain"} <= set(ran(outcome))
    assert "sft" not in ran(outcome)  # what was adopted has the same bytes, so what follows is found
    config = json.loads((Path(outcome.policy) / "config.json").read_text())
    assert config == json.loads((folder / "config.json").read_text())


def test_plain_ppo_adds_a_row(first: Outcome, root: Path) -> None:
    outcome = rlhf(miniature(root, "plain_ppo=true"))
    assert ran(outcome) == ["ppo", "evaluation-ppo", "evaluation", "gate-ppo_ptx", "release-ppo_ptx"]
    assert "win_rate/ppo/gold" in outcome.metrics


def test_reward_models_are_measured_across_labelers(first: Outcome, root: Path) -> None:
    outcome = rlhf(miniature(root, "labeler_folds=2"))
    assert ran(outcome) == ["across_labelers", "release-ppo_ptx"]  # the card shows every value
    (path,) = root.glob("artifacts/across_labelers/*/across_labelers.json")
    found = json.loads(path.read_text())
    assert 0.0 < found["cross_labeler/accuracy_heldout_labelers"] < 1.0 and len(found["folds"]) == 2
    assert not set(found["folds"][0]["held_out_labelers"]) & set(found["folds"][1]["held_out_labelers"])


def test_rivals_add_rows_with_their_costs_and_are_not_what_the_run_ships(first: Outcome, root: Path) -> None:
    assert ran(rlhf(miniature(root, "train_dpo=true")))[:2] == ["dpo", "evaluation-dpo"]
    outcome = rlhf(miniature(root, "rivals=[dpo,rejection_sampling,rloo,grpo]"))
    policies = ["rejection_sampling", "random_control", "rloo", "grpo"]  # DPO is the one that train_dpo made
    sheets = [f"evaluation-{name}" for name in policies]
    shared = ["rejection_sampling-samples"]
    assert ran(outcome) == [*shared, *policies, *sheets, "evaluation", "gate-ppo_ptx", "release-ppo_ptx"]
    assert {f"win_rate/{name}/gold" for name in [*policies, "dpo"]} <= set(outcome.metrics)
    assert outcome.policy == first.policy
    # 64 episodes of PPO; 16 prompts with 2 samples each; DPO draws nothing
    drawn = {cells[0]: cells[1] for cells in outcome.costs}
    assert drawn == {
        "PPO-ptx": "64",
        "RLOO": "64",
        "GRPO": "64",
        "Rejection sampling": "32",
        "Random samples": "32",
        "DPO": "",
    }
    seconds, mebibytes = ([float(cells[place].replace(",", "")) for cells in outcome.costs] for place in (4, 5))
    assert min(seconds) >= 0 and min(mebibytes) > 100
    assert "Random samples" in Path(outcome.page).read_text()


def test_yardsticks_and_questions_are_asked_for_and_cost_only_themselves(
    first: Outcome, root: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        '{"id": "1", "prompt": "q : red ? a :", "chosen": ["red ."], "rejected": ["no .", "a .", "b ."]}\n'
    )
    asked = ["noise_floor=true", f"yardstick={first.policy}", f"reward_questions={questions}"]
    asked.append("evaluation.few_shot.examples=1")
    outcome = rlhf(miniature(root, *asked))
    sheets = ["evaluation-prompted", "evaluation-base_again", "adopted-yardstick", "evaluation-yardstick", "evaluation"]
    assert ran(outcome) == ["reward_questions", *sheets, "gate-ppo_ptx", "release-ppo_ptx"]
    assert outcome.metrics["win_rate_vs_yardstick/ppo_ptx/gold"] == 0.5  # its own weights, and the same random numbers
    assert "win_rate/base_again/gold" in outcome.metrics and "win_rate/prompted/gold" in outcome.metrics
    assert 0 < outcome.metrics["examples_before/prompted"] <= 1
    (found,) = root.glob("artifacts/reward_questions/*/questions.json")
    assert json.loads(found.read_text())["questions/accuracy_all"] in (0.0, 1.0)
    with pytest.raises(PlumblineError, match="yardstick: folder /nowhere does not exist"):
        rlhf(miniature(root, "yardstick=/nowhere"))


def test_ppo_can_start_from_rejection_sampling_and_is_held_to_ppo_init(first: Outcome, root: Path) -> None:
    outcome = rlhf(miniature(root, "ppo_starts_from=rejection_sampling"))
    assert "ppo_ptx" in ran(outcome)

    def first_kl(of: Outcome) -> float:
        history = json.loads((root / "artifacts" / record_of(of, "ppo_ptx") / "history.json").read_text())
        return float(history[0]["objective/kl"])

    assert first_kl(first) == pytest.approx(0.0, abs=1e-6) and abs(first_kl(outcome)) > 1e-3
    assert "win_rate/rejection_sampling/gold" in outcome.metrics


def test_another_store_gives_equal_digests(first: Outcome, root: Path, tmp_path: Path) -> None:
    rlhf(miniature(tmp_path, "runtime.runner=threads"))
    assert {key: value for key, value in digests(root).items() if key in digests(tmp_path)} == digests(tmp_path)


def test_a_failed_gate_keeps_the_results(first: Outcome, root: Path) -> None:
    with pytest.raises(GateFailed, match=r"by gold: \d+\.\d %, expected at least 100\.0 %") as failed:
        rlhf(miniature(root, "evaluation.gate.min_win_rate=1.0"))
    outcome: Outcome = failed.value.outcome
    assert ran(outcome) == ["gate-ppo_ptx"] and outcome.report == first.report and outcome.release is None
