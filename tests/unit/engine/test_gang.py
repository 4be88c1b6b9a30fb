"""A stage on several real processes: what it publishes, how it ends when a rank dies, hangs or fails, and how it goes on.

The scenes that have a ``place`` are played under Ray too (``tests/integration/test_ray_ranks.py``).
"""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from tasks.engine import gang
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.checkpoint import latest_step
from tasks.engine.config import Config
from tasks.engine.context import StageContext, StageName
from tasks.engine.cost import PEAK, Meter
from tasks.engine.errors import DataError, Interrupted, WorkerKilled
from tasks.engine.progress import read_progress
from tasks.engine.ranks import here
from tasks.engine.stage import Workshop, run_stage
from tasks.engine.stop import StopSign
from tasks.language.models import save_policy
from tasks.ppo.learner import PPOLearner
from tests.unit.ppo import tiny

pytestmark = pytest.mark.slow
STEPS = 12


class Knobs(Config):
    steps: int


class Place(NamedTuple):
    """Where ranks run, and how sentences name that."""

    runner: str
    rank: str
    """Rank 1, as a pattern."""
    killed: str
    setup: str
    """What a program of its own begins with."""


def context(root: Path, runner: str = "processes", shard: str = "none") -> StageContext:
    runtime = tiny.runtime(checkpoint_every=3, runner=runner, processes=2, shard=shard)
    return StageContext(
        store=str(root / "store"), tracking_uri="", experiment_id="", parent_run_id="run", runtime=runtime
    )


def ppo_learner(shard: str, steps: int) -> PPOLearner:
    return tiny.learner(episodes=16 * steps, runtime_changes={"debug": False, "shard": shard})


def train(shop: Workshop, knobs: Knobs) -> Mapping[str, float]:
    """Every rank tells who it is, steps take a while."""
    (shop.checkpoints / f"pid-{here().number}").write_text(str(os.getpid()), encoding="utf-8")
    learner = ppo_learner(shop.runtime.shard, knobs.steps)
    told = {}
    for metrics in shop.train(learner):
        told = metrics
        time.sleep(0.2)
    logging.getLogger("plumbline").warning("said once")
    save_policy(learner.final_policy(), tiny.tokenizer(), shop.folder / "policy")
    (shop.folder / f"rank-{here().number}").touch()
    return {"objective/kl": told["objective/kl"], "ranks": float(here().count)}


def fails(shop: Workshop, _: Knobs) -> Mapping[str, float]:
    here().wait()
    if here().number == 1:
        raise DataError("row 3: found nothing, expected text")
    return {"sum": float(len(here().gather(0)))}


def breaks(shop: Workshop, _: Knobs) -> Mapping[str, float]:
    here().wait()
    return {"ratio": 1 / (1 - here().number)} if here().gather(0) else {}


def holds(shop: Workshop, _: Knobs) -> Mapping[str, float]:
    """The second rank has another GiB for a while."""
    before = Meter("cpu").read()[PEAK]
    held = b"x" * (here().number * 2**30)
    peaks = here().gather(before + len(held) / 2**20)
    return {f"rank_{number}": peak for number, peak in enumerate(peaks)}


def of(
    count: int, where: StageContext, story: Callable[..., Mapping[str, float]] = train, steps: int = STEPS
) -> ArtifactRef:
    runtime = where.runtime.model_copy(update={"processes": count})
    surroundings = where.model_copy(update={"runtime": runtime})
    knobs = Knobs(steps=steps)
    return run_stage(
        StageName(group="ppo"), knobs, surroundings, {}, lambda: story, package="tasks.ppo", divided=True
    ).ref


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
def place() -> Place:
    return Place("processes", "rank 1 of 2", r"signal 9; out of memory\?", "")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a stage that one process made."""
    root = tmp_path_factory.mktemp("alone")
    of(1, context(root))
    return root


@pytest.fixture(scope="module")
def whole(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The store of a stage that two ranks made without an incident, for each ``runtime.shard``."""

    @cache
    def made(shard: str) -> Path:
        root = tmp_path_factory.mktemp("whole")
        of(2, context(root, place.runner, shard))
        return root

    return made


def weights(root: Path) -> dict[str, torch.Tensor]:
    (file,) = root.glob("store/ppo/*/policy/model.safetensors")
    return load_file(file)


def equal(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def largest_difference(one: Path, other: Path) -> float:
    """Of the weights, relative to the largest one."""
    first, second = weights(one), weights(other)
    largest = max(float(weight.abs().max()) for weight in first.values())
    return max(float((first[name] - second[name]).abs().max()) for name in first) / largest


def test_two_ranks_make_one_artifact_that_one_process_finds(place: Place, whole: Callable[[str], Path]) -> None:
    where = context(whole("none"), place.runner)
    store = ArtifactStore(where.store)
    ref = of(1, where)  # found: how many ranks there were is not part of the key
    manifest = store.manifest(ref.stage, ref.fingerprint)
    assert manifest is not None and manifest.metrics["ranks"] == 2
    assert (store.open(ref) / "rank-0").exists() and not (store.open(ref) / "rank-1").exists()


def test_the_peak_of_memory_is_that_of_the_largest_rank(place: Place, tmp_path: Path) -> None:
    ref = of(2, context(tmp_path, place.runner), holds)
    manifest = ArtifactStore(tmp_path / "store").manifest(ref.stage, ref.fingerprint)
    assert manifest is not None
    peak, others = manifest.metrics["cost/peak_mib"], [manifest.metrics[f"rank_{number}"] for number in (0, 1)]
    assert peak == pytest.approx(max(others), abs=20) and max(others) == others[1] > others[0] + 800


@pytest.mark.parametrize("shard", ["none", "full"])
def test_a_rank_that_is_killed_ends_the_stage_in_a_sentence_and_the_next_run_goes_on(
    place: Place, alone: Path, whole: Callable[[str], Path], tmp_path: Path, shard: str
) -> None:
    where, known = context(tmp_path, place.runner, shard), {}

    def kill() -> None:
        wait_for(lambda: under_way(tmp_path))
        known.update(pids(tmp_path))
        os.kill(known[1], signal.SIGKILL)
        known[-1] = int(time.monotonic())

    killer = meanwhile(kill)
    with pytest.raises(
        WorkerKilled, match=rf"^ppo: {place.rank} was killed \({place.killed}\), .* last checkpoint is step \d"
    ):
        of(2, where)
    killer.join()
    assert time.monotonic() - known.pop(-1) < 60
    wait_for(lambda: not any(is_alive(pid) for pid in known.values()), seconds=60)
    of(2, where)
    assert equal(whole(shard), tmp_path)
    assert largest_difference(alone, tmp_path) < 1e-6


def test_a_rank_that_hangs_ends_the_stage(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang, "STUCK_SECONDS", 15.0)
    known: dict[int, int] = {}

    def freeze() -> None:
        wait_for(lambda: under_way(tmp_path))
        known.update(pids(tmp_path))
        os.kill(known[1], signal.SIGSTOP)
        known[-1] = int(time.monotonic())

    freezer = meanwhile(freeze)
    with pytest.raises(WorkerKilled, match=rf"^ppo: {place.rank} has shown no sign of life for 15 s and was ended"):
        of(2, context(tmp_path, place.runner))
    freezer.join()
    assert time.monotonic() - known.pop(-1) < 45  # 60, were the patience what it is
    wait_for(lambda: not any(is_alive(pid) for pid in known.values()), seconds=60)


def test_what_a_rank_raises_is_raised_by_the_stage(place: Place, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^row 3: found nothing, expected text$"):
        of(2, context(tmp_path, place.runner), fails)
    with pytest.raises(gang.RankFailed, match=rf"(?s)^ppo: {place.rank} failed:.*Traceback.*ZeroDivisionError"):
        of(2, context(tmp_path, place.runner), breaks)


def test_a_stage_that_is_told_to_stop_saves_once_and_another_number_of_ranks_goes_on(
    place: Place, alone: Path, tmp_path: Path
) -> None:
    where = context(tmp_path, place.runner)
    sign = StopSign(where.store, where.parent_run_id)
    asker = meanwhile(lambda: (wait_for(lambda: under_way(tmp_path)), sign.ask())[1])
    with pytest.raises(Interrupted, match=r"^ppo: stopped at step .*; its state is saved$"):
        of(2, where)
    asker.join()
    (told,) = sign.results()
    assert f"stopped at step {latest_step(checkpoints(tmp_path))} of" in told
    assert [note.stage for note in read_progress(sign.folder)] == ["ppo"]
    sign.remove()
    of(1, where)
    assert largest_difference(alone, tmp_path) < 1e-6


def started(root: Path, place: Place, steps: int = STEPS) -> "subprocess.Popen[bytes]":
    """The stage in a program of its own."""
    program = f"""
from pathlib import Path
from tests.unit.engine.test_gang import context, of
if __name__ == "__main__":
    {place.setup}
    of(2, context(Path({str(root)!r}), {place.runner!r}), steps={steps})
"""
    script = root / "stage.py"
    script.write_text(program, encoding="utf-8")
    project = Path(__file__).parents[3]
    return subprocess.Popen([sys.executable, str(script)], cwd=project, env=os.environ | {"PYTHONPATH": str(project)})


def test_ranks_do_not_outlive_their_stage(place: Place, tmp_path: Path) -> None:
    stage = started(tmp_path, place)
    wait_for(lambda: under_way(tmp_path))
    known = pids(tmp_path)
    stage.kill()
    stage.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in known.values()), seconds=60)


def kill_one(root: Path, place: Place, steps: int, after: int, draw: random.Random) -> int:
    """Start the stage, wait for its checkpoint of step ``after``, kill it (0) or one of its ranks (1, 2); which it was."""
    for file in root.glob("store/checkpoints/*/*/pid-*"):
        file.unlink()  # of the life before
    stage = started(root, place, steps)
    wait_for(lambda: under_way(root, after) or stage.poll() is not None, seconds=300)  # other work on the machine
    time.sleep(draw.uniform(0, 0.6))
    known = [stage.pid, *pids(root).values()]
    who = draw.randrange(len(known))
    os.kill(known[who], signal.SIGKILL)
    assert stage.wait(60) != 0
    wait_for(lambda: not any(map(is_alive, known)), seconds=60)
    return who


def test_twenty_kills_of_a_rank_or_of_its_stage_change_no_bit(place: Place, tmp_path: Path) -> None:
    draw, steps = random.Random(20261129), 66
    (whole := tmp_path / "whole").mkdir()
    of(2, context(whole, place.runner), steps=steps)
    (root := tmp_path / "killed").mkdir()
    assert {kill_one(root, place, steps, 3 * life, draw) for life in range(1, 21)} == {0, 1, 2}
    of(2, context(root, place.runner), steps=steps)
    assert equal(whole, root)
