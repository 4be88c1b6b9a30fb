"""Killed at random moments and started again, a run ends with the bytes and the curves of one that nobody disturbed."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks.engine.checkpoint import UNFINISHED, latest_step
from tests.integration.test_runners import descendants

COMMAND = [sys.executable, "-m", "flows.rlhf", "scale=miniature", "runtime.progress=false"]
SMALLER = [
    "runtime.checkpoint_every=2",
    "pretrain.steps=40",
    "sft.batch_size=4",
    "ppo_init.batch_size=4",
    "reward_model.batch_size=4",
    "ppo.episodes=192",
    "ppo.episodes_per_iteration=16",
    "ppo.minibatch_size=8",
]
SEED = 20241121
TRAINED = ["pretrain", "sft", "ppo_init", "reward_model", "reward_model-independent", "ppo_ptx"]
ORDER = [
    *("data_prep", "pretrain", "sft", "ppo_init", "comparisons", "reward_model", "reward_model-independent"),
    *("ppo_ptx", "evaluation-base", "evaluation-sft", "evaluation-ppo_init", "evaluation-ppo_ptx"),
    "evaluation",
    *("gate-ppo_ptx", "release-ppo_ptx"),
]
PATIENCE = 600
ANYTIME, DRAFT, WRITE, BOUNDARY, TRAINING, PUBLISHED = KINDS = (
    "at any time",  # imports, servers, whatever comes first
    "while it fills its draft",
    "in a checkpoint's write",
    "right after a checkpoint's rename",
    "between two checkpoints",
    "right after its artifact appeared",
)


def start(root: Path, *overrides: str, output: Path | None = None) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PLUMBLINE_HOME": str(root), "PREFECT_HOME": str(root / "prefect")}
    environment["PREFECT_LOCAL_STORAGE_PATH"] = str(root / "prefect" / "records")
    environment.pop("PREFECT_API_URL", None)
    return subprocess.Popen(
        [*COMMAND, *SMALLER, f"tracking.root={root}", *overrides],
        env=environment,
        stdout=(output or root / "output.txt").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(root: Path, *overrides: str) -> None:
    process = start(root, *overrides)
    process.wait(PATIENCE)
    assert process.returncode == 0, (root / "output.txt").read_text()


@dataclass(frozen=True)
class Kill:
    """When to kill a run."""

    stage: str
    kind: str
    after: float
    """Seconds after the moment; of ``ANYTIME``, after the start."""


def names(root: Path, *folders: str) -> set[str]:
    """Names of what lies in ``artifacts/<folders>/*``."""
    found: set[str] = set()
    for folder in root.joinpath("artifacts", *folders).glob("*"):
        try:
            found.update(entry.name for entry in os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def has_come(root: Path, kill: Kill, at_start: set[str]) -> bool:
    """Whether the moment is there; ``at_start`` is what lay among the stage's checkpoints when the run began."""
    if kill.kind == ANYTIME:
        return True
    if kill.kind == DRAFT:
        return any(root.glob(f"artifacts/drafts/{kill.stage}-????????????????????-*"))
    if kill.kind == PUBLISHED:
        return any(root.glob(f"artifacts/{kill.stage}/*/manifest.json"))
    new = names(root, "checkpoints", kill.stage) - at_start
    return any(name.startswith(UNFINISHED if kill.kind == WRITE else "step-") for name in new)


def kill_once(root: Path, kill: Kill, *overrides: str) -> bool:
    """Start, wait for the moment, kill every process of the run; whether a half-written checkpoint was left behind."""
    at_start = names(root, "checkpoints", kill.stage)
    process = start(root, *overrides)
    try:
        end = time.monotonic() + PATIENCE
        while not has_come(root, kill, at_start):
            assert process.poll() is None, f"{kill}: the moment never came\n" + (root / "output.txt").read_text()
            assert time.monotonic() < end, f"{kill}: nothing happened"
            time.sleep(0.0005 if kill.kind == WRITE else 0.005)  # a write lasts a few milliseconds
        time.sleep(kill.after)
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return any(name.startswith(UNFINISHED) for name in names(root, "checkpoints", kill.stage))


def plan_kills(draw: random.Random, pipelines: int) -> list[list[Kill]]:
    """Every stage at every kind of moment it has, dealt out at random, in the order in which the moments come."""
    moments = [(stage, kind) for stage in TRAINED for kind in (WRITE, BOUNDARY, TRAINING)]
    moments += [(stage, DRAFT) for stage in ORDER if stage not in TRAINED]
    moments += [(stage, PUBLISHED) for stage in draw.sample(ORDER[:-1], pipelines)]
    draw.shuffle(moments)
    delays = {ANYTIME: (0.5, 8.0), DRAFT: (0.0, 0.3), TRAINING: (0.0, 0.2)}
    dealt = []
    for first in range(pipelines):
        mine = [(ORDER[0], ANYTIME), *moments[first::pipelines]]
        mine.sort(key=lambda moment: (ORDER.index(moment[0]), KINDS.index(moment[1])))
        dealt.append([Kill(stage, kind, draw.uniform(*delays.get(kind, (0.0, 0.0)))) for stage, kind in mine])
    return dealt


def digests(root: Path) -> dict[str, str]:
    manifests = [json.loads(path.read_text()) for path in root.glob("artifacts/*/*/manifest.json")]
    return {f"{item['stage']}/{item['fingerprint']}": item["digest"] for item in manifests}


Curves = dict[str, dict[str, list[tuple[int, float]]]]


def histories(root: Path) -> Curves:
    """Stage -> metric -> its points, of the one MLflow run that made the stage's artifact.

    Left out are clocks, memory, and what the end of a pipeline notes of its models in the runs of the stages that ran in it.
    """
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs(["1"], "tags.`plumbline.role` = 'stage'", max_results=1000)
    found: Curves = {}
    for run in runs:
        if "plumbline.reused" in run.data.tags:
            continue
        if "artifact" not in run.data.tags:
            # Killed before anybody could remember its id; its successor has all there is to say.
            assert not run.data.metrics and run.info.status == "KILLED", run.data.tags
            continue
        stage = run.data.tags["plumbline.stage"]
        assert stage not in found, f"two runs claim to have made {stage}"
        assert run.info.status == "FINISHED"
        found[stage] = {
            name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
            if not re.search("second|peak_mib|^model/", name)
        }
    return found


def final_metrics(root: Path) -> dict[str, Any]:
    """Metrics of the last pipeline run."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    [run] = client.search_runs(["1"], "tags.`plumbline.role` = 'pipeline' and attributes.status = 'FINISHED'")
    return {name: value for name, value in run.data.metrics.items() if not re.search("second|peak_mib", name)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("whole")
    finish(root)
    yield root


def assert_equal(root: Path, whole: Path) -> None:
    assert digests(root) == digests(whole)
    killed, expected = histories(root), histories(whole)
    assert killed.keys() == expected.keys() == set(ORDER)
    for stage, curves in expected.items():
        assert killed[stage] == curves, stage
    assert final_metrics(root) == final_metrics(whole)


@pytest.mark.slow
def test_more_than_twenty_random_kills_change_nothing(whole: Path, tmp_path: Path) -> None:
    dealt = plan_kills(random.Random(SEED), pipelines=3)
    assert sum(map(len, dealt)) >= 20
    assert {kill.stage for kills in dealt for kill in kills} == set(ORDER)
    half_written = 0
    for number, (runner, kills) in enumerate(zip(["threads", "processes", "threads"], dealt, strict=True)):
        root = tmp_path / str(number)
        root.mkdir()
        for kill in kills:
            hit = kill_once(root, kill, f"runtime.runner={runner}")
            half_written += hit
            print(
                f"{runner}: {kill.stage} killed {kill.kind}, {kill.after:.3f} s later", "(half-written)" if hit else ""
            )
        finish(root, f"runtime.runner={runner}")
        assert_equal(root, whole)
    assert half_written >= 2  # the moment lasts milliseconds, and some are missed


@pytest.mark.slow
def test_two_commands_at_the_same_moment_make_everything_once(whole: Path, tmp_path: Path) -> None:
    both = [start(tmp_path, output=tmp_path / f"output-{number}.txt") for number in range(2)]
    for number, process in enumerate(both):
        process.wait(PATIENCE)
        assert process.returncode == 0, (tmp_path / f"output-{number}.txt").read_text()
    assert digests(tmp_path) == digests(whole)
    histories(tmp_path)  # which refuses a stage that was made twice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "runner", "told"), [("ppo_ptx", "threads", "the command"), ("pretrain", "processes", "every process")]
)
def test_terminated_it_saves_the_step_it_is_in_and_loses_nothing(
    whole: Path, tmp_path: Path, stage: str, runner: str, told: str
) -> None:
    """What a scheduler does before it takes a machine away: SIGTERM, 30 seconds, SIGKILL."""
    overrides = [f"runtime.runner={runner}", "runtime.checkpoint_every=1000"]
    process = start(tmp_path, *overrides)
    end = time.monotonic() + PATIENCE
    while not any(tmp_path.glob(f"artifacts/runs/*/training-{stage}")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    time.sleep(0.3)
    for pid in [process.pid] if told == "the command" else descendants(process.pid):
        os.kill(pid, signal.SIGTERM)
    assert process.wait(30) == 130
    output = (tmp_path / "output.txt").read_text()
    folders = list(tmp_path.glob(f"artifacts/checkpoints/{stage}/*"))
    if folders:
        step = latest_step(folders[0])
        assert step is not None and f"{stage}: stopped at step {step} of " in output
    else:  # a busy machine: it had not made a step yet
        assert f"{stage}: stopped before its first step, as it was told to" in output
    again = shlex.join(
        [Path(sys.executable).name, "-m", "flows.rlhf", *COMMAND[3:], *SMALLER, f"tracking.root={tmp_path}", *overrides]
    )
    assert f"interrupted; the same command goes on from what is saved: {again}\n" in output
    finish(tmp_path, *overrides)
    assert_equal(tmp_path, whole)
