"""A stage on several real processes: what it publishes, how it ends when a rank dies, hangs or fails, and how it goes on."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.engine import gang
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.checkpoint import latest_step
from tasks.engine.context import StageContext, StageName
from tasks.engine.errors import DataError, Interrupted, PlumblineError, WorkerKilled
from tasks.engine.progress import read_progress
from tasks.engine.ranks import here
from tasks.engine.stage import Workshop, run_stage
from tasks.engine.stop import StopSign
from tasks.language.models import save_policy
from tests.unit.engine.test_stage import Knobs, context, ppo_learner, tiny

pytestmark = pytest.mark.slow
STEPS = 12


def train(shop: Workshop, _: Knobs) -> Mapping[str, float]:
    """Every rank tells who it is, steps take a while."""
    (shop.checkpoints / f"pid-{here().number}").write_text(str(os.getpid()), encoding="utf-8")
    learner = ppo_learner()
    for metrics in shop.train(learner):
        time.sleep(0.2)
    logging.getLogger("plumbline").warning("said once")
    save_policy(learner.final_policy(), tiny.tokenizer(), shop.folder / "policy")
    (shop.folder / f"rank-{here().number}").touch()
    return {"objective/kl": metrics["objective/kl"], "ranks": float(here().count)}


def fails(shop: Workshop, _: Knobs) -> Mapping[str, float]:
    here().wait()
    if here().number == 1:
        raise DataError("row 3: found nothing, expected text")
    return {"sum": float(len(here().gather(0)))}


def breaks(shop: Workshop, _: Knobs) -> Mapping[str, float]:
    here().wait()
    return {"ratio": 1 / (1 - here().number)} if here().gather(0) else {}


def of(count: int, where: StageContext, story: Callable[..., Mapping[str, float]] = train) -> ArtifactRef:
    runtime = where.runtime.model_copy(update={"processes": count})
    surroundings = where.model_copy(update={"runtime": runtime})
    knobs = Knobs(steps=STEPS)
    return run_stage(StageName(group="ppo"), knobs, surroundings, {}, story, package="tasks.ppo", divided=True).ref


def pids(root: Path) -> dict[int, int]:
    """Of the ranks of the stage under way."""
    found = {path.name[4:]: path.read_text(encoding="utf-8") for path in root.glob("store/checkpoints/*/*/pid-*")}
    return {int(number): int(pid) for number, pid in found.items() if pid}


def checkpoints(root: Path) -> Path:
    (folder,) = root.glob("store/checkpoints/*/*")
    return folder


def wait_for(what: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def under_way(root: Path, step: int = 3) -> bool:
    return len(pids(root)) == 2 and (latest_step(checkpoints(root)) or 0) >= step


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def meanwhile(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a stage that two ranks made without an incident."""
    root = tmp_path_factory.mktemp("whole")
    of(2, context(root))
    return root


def weights(root: Path) -> dict[str, torch.Tensor]:
    (file,) = root.glob("store/ppo/*/policy/model.safetensors")
    return load_file(file)


def test_two_ranks_make_one_artifact_that_one_process_finds(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = context(whole)
    store = ArtifactStore(where.store)
    ref = of(1, where)  # found: how many ranks there were is not part of the key
    manifest = store.manifest(ref.stage, ref.fingerprint)
    assert manifest is not None and manifest.metrics["ranks"] == 2
    assert (store.open(ref) / "rank-0").exists() and not (store.open(ref) / "rank-1").exists()
