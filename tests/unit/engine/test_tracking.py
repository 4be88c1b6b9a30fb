"""Against a real MLflow database in a temporary folder."""

import re
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient

from flows.tools.tracked import metric_history
from tasks.engine.config import RuntimeConfig
from tasks.engine.context import StageContext
from tasks.engine.tracking import (
    RunLog,
    deliver,
    flatten,
    parent_of,
    prepare,
    record_reuse,
    stage_run,
    start_pipeline_run,
)
from tasks.engine.tracking.outbox import outbox

RUNTIME = RuntimeConfig(
    device="cpu",
    precision="fp32",
    frozen_precision="fp32",
    gradient_checkpointing=False,
    threads=1,
    processes=1,
    shard="none",
    tokens_per_microbatch=64,
    generation_batch=8,
    runner="threads",
    ray_address=None,
    max_workers=1,
    checkpoint_every=5,
    checkpoint_minutes=60,
    stop_seconds=5,
    debug=False,
    progress=False,
)


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path_factory.mktemp("home")))
    outbox.cache_clear()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment = prepare(uri, "rlhf", folder / "files")
    parent = start_pipeline_run(uri, experiment, "run", {"ppo": {"beta": 0.02}}, {})
    return StageContext(
        store=str(folder), tracking_uri=uri, experiment_id=experiment, parent_run_id=parent, runtime=RUNTIME
    )


def test_flat_parameters_are_spelled_as_on_the_command_line() -> None:
    nested = {"ppo": {"beta": 0.02, "policy_adam": {"beta1": 0.9}}, "seed": 1, "model": {"revision": None}}
    assert flatten(nested) == {
        "ppo.beta": "0.02",
        "ppo.policy_adam.beta1": "0.9",
        "seed": "1",
        "model.revision": "null",
    }


def test_a_stage_is_a_child_with_params_tags_and_curves(context: StageContext, tmp_path: Path) -> None:
    with stage_run(context, "ppo", {"ppo": {"beta": 0.02}}, {"input.data": "d1"}, tmp_path / "memory") as log:
        for step in (1, 2, 3):
            log.metrics({"objective/kl": step / 10}, step)
    run = MlflowClient(context.tracking_uri).get_run(log.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"ppo.beta": "0.02"}
    assert run.data.tags["input.data"] == "d1"
    assert parent_of(context.tracking_uri, log.run_id) == context.parent_run_id
    rows = metric_history(context.tracking_uri, log.run_id, ["objective/kl"])
    assert rows == [{"step": float(step), "objective/kl": step / 10} for step in (1, 2, 3)]


def test_a_killed_stage_goes_on_in_its_run_without_missing_or_double_steps(
    context: StageContext, tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    killed = stage_run(context, "sft", {}, {}, memory)
    log = killed.__enter__()
    log.metrics({"train/loss": 3.0}, 1)
    log.metrics({"train/loss": 2.0}, 2)
    log.flush()  # and now the process is gone: no __exit__
    with stage_run(context, "sft", {}, {}, memory) as resumed:
        assert resumed.run_id == log.run_id
        resumed.metrics({"train/loss": 2.0}, 2)
        resumed.metrics({"train/loss": 1.0}, 3)
    history = MlflowClient(context.tracking_uri).get_metric_history(log.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_a_failed_stage_is_marked_with_its_reason(context: StageContext, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), stage_run(context, "sft", {}, {}, tmp_path / "memory") as log:
        raise RuntimeError("no such luck\nsecond line")
    run = MlflowClient(context.tracking_uri).get_run(log.run_id)
    assert (run.info.status, run.data.tags["plumbline.error"]) == ("FAILED", "no such luck")


def test_a_found_stage_is_recorded_with_the_metrics_of_its_maker(context: StageContext) -> None:
    record_reuse(context, "sft", {"sft": {"epochs": 4}}, {"artifact": "sft/f"}, {"final/valid/loss": 1.5}, "maker")
    client = MlflowClient(context.tracking_uri)
    run = client.search_runs([context.experiment_id], "tags.`plumbline.reused` = 'true'")[0]
    assert run.data.metrics == {"final/valid/loss": 1.5}
    assert run.data.tags["plumbline.made_by_run"] == "maker"


def test_dataset_inputs_show_in_the_run(context: StageContext, tmp_path: Path) -> None:
    with stage_run(context, "data_prep", {}, {}, tmp_path / "memory") as log:
        log.dataset("demonstrations", "a" * 64, "data_prep/f", 12, "training")
    found = MlflowClient(context.tracking_uri).get_run(log.run_id).inputs.dataset_inputs
    assert [(item.dataset.name, item.dataset.digest) for item in found] == [("demonstrations", "a" * 36)]


def test_stages_that_use_a_dataset_first_at_the_same_moment(context: StageContext, tmp_path: Path) -> None:
    """MLflow looks for a dataset before it adds it; between the two, other stages do the same."""
    logs, together, failures = 6, threading.Barrier(6), []

    def use(log: RunLog) -> None:
        try:
            for name in range(3):
                together.wait()
                log.dataset(f"shared {name}", "d" * 64, "place", 3, "training")
        except Exception as failure:
            failures.append(failure)
            together.abort()

    with ExitStack() as stack:
        opened = [stack.enter_context(stage_run(context, f"s{i}", {}, {}, tmp_path / str(i))) for i in range(logs)]
        threads = [threading.Thread(target=use, args=(log,)) for log in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    client = MlflowClient(context.tracking_uri)
    for log in opened:
        found = client.get_run(log.run_id).inputs.dataset_inputs
        assert sorted(item.dataset.name for item in found) == [f"shared {name}" for name in range(3)]


def test_what_mlflow_refuses_is_set_aside_and_training_goes_on(
    context: StageContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stage_run(context, "data_prep", {}, {}, tmp_path / "memory") as log:
        log.dataset("n" * 501, "d", "place", 3, "training")
        log.metrics({"good/one": 1.0}, 1)
    assert MlflowClient(context.tracking_uri).get_run(log.run_id).data.metrics == {"good/one": 1.0}
    told = [record.message for record in caplog.records if "refused" in record.message]
    assert told and not any("n" * 501 in sentence for sentence in told)
    left = deliver(context.tracking_uri)
    assert left is not None and "refused entries of 1 runs" in left


def test_a_new_experiment_is_of_model_training_and_its_searches_find_runs(context: StageContext) -> None:
    tracking = MlflowClient(context.tracking_uri)
    tags = tracking.get_experiment(context.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    links = [
        parse_qs(urlsplit(link).fragment.partition("?")[2])
        for link in re.findall(r"\((#[^)]*)\)", tags["mlflow.note.content"])
    ]
    pipelines, passed, failed = (link["searchFilter"][0] for link in links)
    assert {link["workflowType"][0] for link in links} == {"machine_learning"}
    here = [context.experiment_id]
    for words, change in ((passed, {"plumbline.gate": "passed"}), (pipelines, {}), (failed, {})):
        run = start_pipeline_run(context.tracking_uri, here[0], "one", {}, change)
        if words == failed:
            RunLog(context.tracking_uri, run).finish("FAILED")
        found = tracking.search_runs(here, words, order_by=[f"{links[0]['orderByKey'][0]} DESC"])
        assert run in {item.info.run_id for item in found}
    assert len(tracking.search_runs(here, passed)) == 1
    assert {item.info.status for item in tracking.search_runs(here, failed)} == {"FAILED"}


def test_system_metrics_are_sampled_where_they_are_asked_for(
    context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    tracking = MlflowClient(context.tracking_uri)
    for asked in (False, True):
        with stage_run(
            context.model_copy(update={"system_metrics": asked}), "sft", {}, {}, tmp_path / str(asked)
        ) as log:
            end = time.monotonic() + (20 if asked else 0.3)
            while (
                time.monotonic() < end
                and "system/cpu_utilization_percentage" not in tracking.get_run(log.run_id).data.metrics
            ):
                time.sleep(0.1)
        sampled = {name for name in tracking.get_run(log.run_id).data.metrics if name.startswith("system/")}
        assert ("system/system_memory_usage_megabytes" in sampled) is asked
