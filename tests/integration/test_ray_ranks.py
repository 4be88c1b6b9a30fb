"""One stage on two machines: a Ray cluster of two nodes, each with room for one rank, in processes of this machine."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tasks.engine import gang
from tasks.engine.checkpoint import latest_step
from tasks.engine.context import StageContext
from tasks.engine.errors import ConfigError, DataError, Interrupted, WorkerKilled
from tasks.engine.stage import Workshop
from tasks.engine.stop import StopSign
from tests.unit.engine import test_gang as here
from tests.unit.engine.test_gang import Knobs, checkpoints, is_alive, meanwhile, of, pids, under_way, wait_for, weights

pytestmark = pytest.mark.slow
STORE_BYTES = 100 * 2**20


def train(shop: Workshop, knobs: Knobs) -> Mapping[str, float]:
    """Every rank also tells on which node it is."""
    import ray

    number = here.here().number
    (shop.store.root.parent / f"node-{number}").write_text(ray.get_runtime_context().get_node_id(), encoding="utf-8")
    return here.train(shop, knobs)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    both = Cluster(initialize_head=True, head_node_args=node)
    try:
        both.add_node(**node)
        ray.init(address=both.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        both.shutdown()


def on_ray(root: Path) -> StageContext:
    where = here.context(root)
    return where.model_copy(update={"runtime": where.runtime.model_copy(update={"runner": "ray"})})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a stage that one process made."""
    root = tmp_path_factory.mktemp("alone")
    of(1, here.context(root))
    return root


def largest_difference(one: Path, other: Path) -> float:
    """Of the weights, relative to the largest one."""
    first, second = weights(one), weights(other)
    largest = max(float(weight.abs().max()) for weight in first.values())
    return max(float((first[name] - second[name]).abs().max()) for name in first) / largest


def test_two_nodes_come_to_the_weights_of_one_process(
    alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ref = of(2, on_ray(tmp_path), train)
    nodes = [(tmp_path / f"node-{number}").read_text(encoding="utf-8") for number in (0, 1)]
    assert nodes[0] != nodes[1]
    assert caplog.messages.count("said once") == 1
    assert largest_difference(alone, tmp_path) < 1e-6
    assert of(1, here.context(tmp_path)) == ref


def test_a_rank_that_is_killed_ends_the_stage_in_a_sentence_and_the_same_command_goes_on(
    alone: Path, tmp_path: Path
) -> None:
    known: dict[int, int] = {}

    def kill() -> None:
        wait_for(lambda: under_way(tmp_path))
        known.update(pids(tmp_path))
        os.kill(known[1], signal.SIGKILL)
        known[-1] = int(time.monotonic())

    killer = meanwhile(kill)
    with pytest.raises(
        WorkerKilled,
        match=r"^ppo: rank 1 of 2 \(node [\d.]+\) was killed \(out of memory.*, .* last checkpoint is step \d",
    ):
        of(2, on_ray(tmp_path))
    killer.join()
    assert time.monotonic() - known.pop(-1) < 60
    wait_for(lambda: not any(is_alive(pid) for pid in known.values()), seconds=10)
    step = latest_step(checkpoints(tmp_path))
    assert step is not None and step >= 3
    of(2, on_ray(tmp_path))
    assert largest_difference(alone, tmp_path) < 1e-6


def test_a_rank_that_hangs_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang, "STUCK_SECONDS", 15.0)
    known: dict[int, int] = {}

    def freeze() -> None:
        wait_for(lambda: under_way(tmp_path))
        known.update(pids(tmp_path))
        os.kill(known[1], signal.SIGSTOP)
        known[-1] = int(time.monotonic())

    freezer = meanwhile(freeze)
    with pytest.raises(WorkerKilled, match=r"^ppo: rank 1 of 2 \(node .*\) has shown no sign of life for 15 s and was"):
        of(2, on_ray(tmp_path))
    freezer.join()
    assert time.monotonic() - known.pop(-1) < 45  # 60, were the patience what it is
    wait_for(lambda: not any(is_alive(pid) for pid in known.values()), seconds=20)


def test_what_a_rank_raises_is_raised_by_the_stage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^row 3: found nothing, expected text$"):
        of(2, on_ray(tmp_path), here.fails)
    with pytest.raises(gang.RankFailed, match=r"(?s)^ppo: rank 1 of 2 \(node .*\) failed:.*Traceback.*ZeroDivision"):
        of(2, on_ray(tmp_path), here.breaks)


def test_a_stage_that_is_told_to_stop_saves(tmp_path: Path) -> None:
    where = on_ray(tmp_path)
    sign = StopSign(where.store, where.parent_run_id)
    asker = meanwhile(lambda: (wait_for(lambda: under_way(tmp_path)), sign.ask())[1])
    with pytest.raises(Interrupted, match=r"^ppo: stopped at step .*; its state is saved$"):
        of(2, where)
    asker.join()
    (told,) = sign.results()
    assert f"stopped at step {latest_step(checkpoints(tmp_path))} of" in told


def test_more_ranks_than_the_cluster_has_room_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"runtime\.processes 3, but the Ray cluster has 2 CPU on 2 nodes.*processes=2"
    ):
        of(3, on_ray(tmp_path))
