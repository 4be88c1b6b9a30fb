"""``run_stage`` with a real PPO learner, real processes, real signals and a real MLflow database."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  here once, not in every child
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from tasks.engine import stage
from tasks.engine.artifacts import ArtifactRef, ArtifactStore, write_json
from tasks.engine.checkpoint import UNFINISHED, latest_step
from tasks.engine.config import Config
from tasks.engine.context import StageContext, StageName
from tasks.engine.errors import ArtifactError, Interrupted, PlumblineError, TrainingDiverged
from tasks.engine.stage import Workshop, run_stage
from tasks.engine.stop import StopSign
from tasks.engine.tracking import RunLog, prepare, start_pipeline_run
from tasks.language.models import save_policy
from tasks.ppo.learner import PPOLearner
from tasks.ppo.watch import WatchedLearner
from tests.unit.ppo import tiny

STEPS = 12
FORK = multiprocessing.get_context("fork")  # the imports are paid for


class Knobs(Config):
    steps: int


def context(root: Path, *, tracked: bool = True, every: int = 3) -> StageContext:
    """The surroundings that ``Pipeline`` would give; call it where the stage runs, never in the process that forks."""
    uri, experiment, run = "", "", "run"
    if tracked:
        uri = f"sqlite:///{root / 'mlflow.db'}"
        experiment = prepare(uri, "test", root / "mlflow")
        run = start_pipeline_run(uri, experiment, "test", {}, {})
    runtime = tiny.runtime(checkpoint_every=every)
    return StageContext(
        store=str(root / "store"), tracking_uri=uri, experiment_id=experiment, parent_run_id=run, runtime=runtime
    )


def ppo_learner() -> PPOLearner:
    return tiny.learner(episodes=16 * STEPS, runtime_changes={"debug": False})


def train(shop: Workshop) -> Mapping[str, float]:
    learner = ppo_learner()
    steps = list(shop.train(learner))
    save_policy(learner.final_policy(), tiny.tokenizer(), shop.folder / "policy")
    return {"objective/kl": steps[-1]["objective/kl"]}


def ppo(where: StageContext, story: Callable[[Workshop], Mapping[str, float]] = train) -> ArtifactRef:
    return run_stage(
        StageName(group="ppo"), Knobs(steps=STEPS), where, {}, lambda: lambda shop, _: story(shop), package="tasks.ppo"
    ).ref


def in_process(work: Callable[[], Any]) -> "multiprocessing.process.BaseProcess":
    """A child that ends at once when its work has: what other files of tests left running in this process (Prefect's
    services) is not in the child, and would fail there while it shuts down."""

    def until_done() -> None:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    process = FORK.Process(target=until_done, daemon=True)
    process.start()
    return process


def finish(work: Callable[[], Any]) -> None:
    process = in_process(work)
    process.join(120)
    assert process.exitcode == 0


def folder_of_checkpoints(root: Path) -> Path:
    return next((root / "store" / "checkpoints" / "ppo").iterdir())


def wait_for(condition: Callable[[], bool], process: "multiprocessing.process.BaseProcess") -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.is_alive() and time.monotonic() < end, "the moment to act at never came"


def digest(root: Path) -> str:
    [path] = (root / "store" / "ppo").glob("*/manifest.json")
    return str(json.loads(path.read_text())["digest"])


def ppo_runs(root: Path) -> list[Any]:
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return list(client.search_runs(["1"], "tags.`plumbline.stage` = 'ppo'"))


def curves(root: Path) -> dict[str, list[tuple[int, float]]]:
    """All histories of the one PPO run but those of the clock and of the machine's memory."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    [run] = ppo_runs(root)
    names = [name for name in run.data.metrics if "second" not in name and "peak_mib" not in name]
    return {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in names
    }


def in_one_file(database: Path) -> None:
    """Move what is in the write-ahead log into the database, so that it can be copied."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it; building one takes longer than a whole run here."""
    root = tmp_path_factory.mktemp("database")
    finish(lambda: prepare(f"sqlite:///{root / 'mlflow.db'}", "test", root / "mlflow"))
    in_one_file(root / "mlflow.db")
    return root / "mlflow.db"


@pytest.fixture
def root(database: Path, tmp_path: Path) -> Path:
    """Where a run's store and its database lie."""
    shutil.copy(database, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copy(database, root)
    finish(lambda: ppo(context(root)))
    return root


def test_killed_at_a_random_moment_it_ends_with_the_same_bytes_and_the_same_curves(whole: Path, root: Path) -> None:
    draw = random.Random(int(os.environ.get("KILL_SEED", "20241121")))
    step, phase = draw.randrange(1, STEPS), draw.choice(["in a checkpoint's write", "between checkpoints", "at once"])
    delay = draw.uniform(0, 0.03)
    print(f"killed {phase} after checkpoint {step // 3 * 3}, {delay:.3f} s later")  # shown when the test fails

    def moment() -> bool:
        checkpoints = list((root / "store" / "checkpoints" / "ppo").glob("*/*"))
        here = [path.name for path in checkpoints]
        reached = step < 3 or any(int(name[5:13]) >= step // 3 * 3 for name in here if name.startswith("step-"))
        return reached and (phase != "in a checkpoint's write" or any(name.startswith(UNFINISHED) for name in here))

    process = in_process(lambda: ppo(context(root)))
    wait_for(moment, process)
    if phase == "between checkpoints":
        time.sleep(delay)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finish(lambda: ppo(context(root)))
    assert digest(root) == digest(whole)
    assert curves(root) == curves(whole)
    assert [point for point, _ in curves(root)["objective/kl"]] == list(range(1, STEPS + 1))


def test_told_to_stop_it_saves_the_step_it_is_in_and_goes_on_from_there(whole: Path, root: Path) -> None:
    def stopped() -> None:
        where = context(root, every=1000)
        (root / "run").write_text(where.parent_run_id)
        with pytest.raises(Interrupted, match=r"^ppo: stopped at step \d+ of 12, as it was told to"):
            ppo(where)

    process = in_process(stopped)
    wait_for(lambda: bool(list((root / "store").glob("runs/*/training-ppo"))), process)
    sign = StopSign(root / "store", (root / "run").read_text())
    time.sleep(0.1)
    sign.ask()
    process.join(60)
    assert process.exitcode == 0 and not sign.is_training()
    step = latest_step(folder_of_checkpoints(root))
    assert step is not None and 1 <= step < STEPS
    assert sign.results() == [f"ppo: stopped at step {step} of 12, as it was told to; its state is saved"]
    finish(lambda: ppo(context(root, every=1000)))
    assert digest(root) == digest(whole)
    assert curves(root) == curves(whole)


def test_killed_after_publishing_and_before_saying_so_its_run_is_closed_by_the_next(
    whole: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunLog, "finish", lambda *_: os.kill(os.getpid(), signal.SIGKILL))  # the next thing it does
    process = in_process(lambda: ppo(context(root)))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    finish(lambda: ppo(context(root)))
    reused, made = sorted(ppo_runs(root), key=lambda run: "plumbline.reused" not in run.data.tags)
    assert "plumbline.reused" in reused.data.tags
    assert made.info.status == "FINISHED" and made.data.tags["digest"] == digest(root) == digest(whole)
    assert made.data.metrics["final/objective/kl"] == reused.data.metrics["final/objective/kl"]
    assert not list((root / "store" / "checkpoints" / "ppo").iterdir())


def test_two_that_need_the_same_artifact_at_once_build_it_once(tmp_path: Path) -> None:
    barrier = FORK.Barrier(2)

    def slow(shop: Workshop) -> Mapping[str, float]:
        with (tmp_path / "built").open("a") as stream:
            stream.write("once\n")
        time.sleep(0.3)
        write_json(shop.folder / "result.json", [1, 2])
        return {}

    def one() -> None:
        where = context(tmp_path, tracked=False)
        barrier.wait(30)
        ref = ppo(where, slow)
        assert (ArtifactStore(where.store).open(ref) / "result.json").is_file()

    both = [in_process(one), in_process(one)]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "built").read_text() == "once\n"


def test_the_story_of_what_the_store_has_is_not_loaded(tmp_path: Path) -> None:
    def story(shop: Workshop, _: Knobs) -> Mapping[str, float]:
        (shop.folder / "done").touch()
        return {}

    def load() -> Callable[[Workshop, Knobs], Mapping[str, float]]:
        loaded.append("story")
        return story

    loaded: list[str] = []
    where = context(tmp_path, tracked=False)
    for found in (False, True):
        assert run_stage(StageName(group="toy"), Knobs(steps=1), where, {}, load, package="tasks.gate").found is found
    assert loaded == ["story"]


def test_what_ranks_took_is_no_less_for_who_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "told_by_ranks", lambda story, shop, config, devices: {"cost/peak_mib": 3.0})
    here = context(tmp_path, tracked=False)
    here = here.model_copy(update={"runtime": here.runtime.model_copy(update={"processes": 2})})
    found = run_stage(
        StageName(group="ppo"), Knobs(steps=1), here, {}, lambda: lambda *_: {}, package="tasks.ppo", divided=True
    )
    manifest = ArtifactStore(here.store).manifest(found.ref.stage, found.ref.fingerprint)
    assert manifest is not None and manifest.metrics["cost/peak_mib"] == 3.0
    assert manifest.metrics["cost/seconds"] > 0


def test_one_that_waits_for_another_builder_can_be_told_to_stop(tmp_path: Path) -> None:
    where = context(tmp_path, tracked=False)
    store = ArtifactStore(where.store)

    def waits() -> None:
        with pytest.raises(Interrupted, match="while another run was making the same artifact"):
            ppo(where)

    made = stage.fingerprint(stage.dependencies("tasks.ppo", Knobs(steps=STEPS), {}))
    with store.lock("ppo", made):
        process = in_process(waits)
        time.sleep(0.3)
        assert process.is_alive()
        StopSign(store.root, "run").ask()
        process.join(30)
    assert process.exitcode == 0


def test_damage_of_equal_size_is_named_and_made_again_in_the_same_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def result(shop: Workshop) -> Mapping[str, float]:
        write_json(shop.folder / "result.json", [1, 2])
        return {}

    where = context(tmp_path, tracked=False)
    ref = ppo(where, result)
    path = ArtifactStore(where.store).folder("ppo", ref.fingerprint) / "result.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"1", b"7"))
    assert ppo(where, result) == ref
    assert path.read_bytes() == whole
    assert f"ppo/{ref.fingerprint}: file result.json has digest" in caplog.text


def test_a_diverged_iteration_leaves_its_episodes_and_the_last_good_checkpoint(root: Path) -> None:
    def planted(shop: Workshop) -> Mapping[str, float]:
        learner = WatchedLearner(ppo_learner(), [])  # as the stage trains it
        for _ in shop.train(learner):
            if learner.completed_steps == 4:
                with torch.no_grad():
                    learner.learner.networks.value_model.head.weight.fill_(float("nan"))
        return {}

    def diverges() -> None:
        with pytest.raises(TrainingDiverged) as raised:
            ppo(context(root), planted)
        (root / "message").write_text(str(raised.value))

    finish(diverges)
    message, folder = (root / "message").read_text(), folder_of_checkpoints(root)
    texts = folder / "diverged-00000005.jsonl"
    assert message.startswith("step 5: ") and str(texts) in message and "step-00000003.pt" in message
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    asked = {prompt.text for prompt in tiny.prompts()}
    assert len(rows) == 16 and all(row["prompt"] in asked and isinstance(row["response"], str) for row in rows)
    numbers = load_file(texts.with_suffix(".safetensors"))
    assert numbers["values"].isnan().any() and numbers["logprobs"].isfinite().all()
    assert numbers["response_mask"].shape == numbers["logprobs"].shape == (16, 6)
    [run] = ppo_runs(root)
    assert run.info.status == "FAILED" and run.data.tags["plumbline.error"].startswith("step 5: ")


def test_a_file_that_may_not_grow_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    """The limit on file size refuses writes as a full disk does, wherever they come from: here, torch's."""

    def limited() -> None:
        where = context(tmp_path, tracked=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with pytest.raises(ArtifactError) as raised:
            ppo(where)
        os.write(writing, str(raised.value).encode())

    reading, writing = os.pipe()
    finish(limited)
    message = os.read(reading, 10_000).decode()
    assert "step-00000003.pt cannot be written: a file would be larger than this process may write" in message
    assert "\n" not in message
    assert list(folder_of_checkpoints(tmp_path).iterdir()) == []
    finish(lambda: ppo(context(tmp_path, tracked=False)))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_store_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    where = context(tmp_path, tracked=False)
    ArtifactStore(where.store)
    for folder in (tmp_path.parents[1], tmp_path.parents[0], tmp_path):
        folder.chmod(0o755)

    def nobody() -> None:
        os.setuid(65534)
        with pytest.raises(PlumblineError, match=r"no permission to write there; choose another folder") as raised:
            ppo(where)
        assert "\n" not in str(raised.value)

    finish(nobody)
