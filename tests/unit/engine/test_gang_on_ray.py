"""What can be known of ranks on other machines without a cluster: room, the folder they share, how they end."""

import logging
import signal
import sys
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.ask.doctor.requirements import check_devices
from flows.process.runners import make_runner, resources_of
from tasks.engine import fingerprint, gang, gang_on_ray
from tasks.engine.collective import RankLost
from tasks.engine.config import RuntimeConfig
from tasks.engine.cost import PEAK
from tasks.engine.declared import Stage
from tasks.engine.errors import ConfigError, DataError, Interrupted, WorkerKilled
from tasks.engine.gang_on_ray import Arrival, network_device, refuse_others, refuse_unseen, refuse_without_room
from tasks.engine.ranks import Ranks
from tests.unit import tiny_models as tiny

PPO = Stage("PPO", "tasks.ppo.task:train_ppo", cpus=2, gpus=1, divided=True)
Cluster = Callable[..., None]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Nodes with these CPUs and GPUs, and what Prefect's runner for Ray is told."""

    def has(*nodes: tuple[int, int]) -> None:
        known = [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in nodes]
        lost = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        ray: Any = types.ModuleType("ray")
        ray.nodes = lambda: [*known, lost]
        ray.cluster_resources = lambda: {"GPU": float(sum(gpus for _, gpus in nodes))}
        monkeypatch.setitem(sys.modules, "ray", ray)

    return has


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What Prefect's runner for Ray is given."""
    given: list[Any] = []
    package: Any = types.ModuleType("prefect_ray")

    class RayTaskRunner:
        def __init__(self, *arguments: Any) -> None:
            given.append(arguments)

        def __enter__(self) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does, with a handler of its own

    package.RayTaskRunner = RayTaskRunner
    options: Any = types.ModuleType("prefect_ray.context")

    class remote_options:
        def __init__(self, **asked: float) -> None:
            given.append(asked)

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    options.remote_options = remote_options
    monkeypatch.setitem(sys.modules, "prefect_ray", package)
    monkeypatch.setitem(sys.modules, "prefect_ray.context", options)
    known = sys.modules.pop("flows.process.ray_runner", None)
    yield given
    sys.modules.pop("flows.process.ray_runner", None)
    if known is not None:
        sys.modules["flows.process.ray_runner"] = known


def on_ray(**changes: Any) -> RuntimeConfig:
    return tiny.runtime(**{"runner": "ray", "processes": 2, "max_workers": 2} | changes)


def test_the_task_of_a_divided_stage_leaves_all_to_its_ranks(cluster: Cluster, told: list[Any]) -> None:
    cluster((1, 1), (1, 1))
    with resources_of(PPO, on_ray(device="cuda")), resources_of(PPO, on_ray()):
        assert told == [{"num_cpus": 0, "num_gpus": 0}] * 2
    with resources_of(PPO._replace(divided=False), on_ray(device="cuda")):  # asks for no more than a node has
        assert told[-1] == {"num_cpus": 1, "num_gpus": 1}


@pytest.mark.parametrize(
    ("nodes", "device", "sentence"),
    [
        ([(8, 1)], "cuda", "has 1 GPU on 1 nodes, room for 1 ranks with a GPU and a CPU each; set runtime.processes=1"),
        ([(8, 1), (0, 1)], "cuda", "has 2 GPU on 2 nodes, room for 1 ranks"),  # a rank needs a CPU beside its GPU
        ([(8, 0)], "cuda", "has no GPU on 1 nodes"),
        ([(1, 4)], "cpu", "has 1 CPU on 1 nodes, room for 1 ranks with a CPU each"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused_instead_of_waiting_for_ever(
    cluster: Cluster, told: list[Any], nodes: list[tuple[int, int]], device: str, sentence: str
) -> None:
    cluster(*nodes)
    with pytest.raises(ConfigError) as refused, resources_of(PPO, on_ray(device=device)):
        pass
    assert sentence in str(refused.value) and f"runtime.device is {device} and runtime.processes 2" in str(
        refused.value
    )
    refuse_without_room(1, "cpu")


def test_a_cluster_without_a_cpu_is_refused(cluster: Cluster, told: list[Any]) -> None:
    cluster((0, 1))
    with pytest.raises(ConfigError, match="no CPU for a stage"), resources_of(PPO, on_ray(processes=1)):
        pass


def test_a_cluster_of_the_runs_own_has_room_for_all_ranks(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_runner(on_ray(processes=4))
    address, given = told[-1]
    assert address is None and given["num_cpus"] == 4
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.9:6379")
    make_runner(on_ray())
    assert told[-1] == ("10.0.0.9:6379", {"log_to_driver": False})  # how large it is, is not ours to say
    make_runner(on_ray(ray_address="10.0.0.1:6379"))
    assert told[-1][0] == "10.0.0.1:6379"


def test_ray_leaves_a_sigterm_to_the_run(told: list[Any]) -> None:
    def ends_in_order(signum: int, frame: Any) -> None: ...

    before = signal.signal(signal.SIGTERM, ends_in_order)
    try:
        make_runner(on_ray()).__enter__()
        assert signal.getsignal(signal.SIGTERM) is ends_in_order
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_gpus_of_a_cluster_are_not_looked_for_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_devices(on_ray(device="cuda", ray_address="10.0.0.1:6379"))
    with pytest.raises(ConfigError, match=r"found 'cuda:1' with the Ray cluster at 10\.0\.0\.1:6379"):
        check_devices(on_ray(device="cuda:1", ray_address="10.0.0.1:6379"))
    with pytest.raises(ConfigError, match="torch sees 0 GPUs"):
        check_devices(on_ray(device="cuda"))


def test_a_node_that_does_not_see_the_store_is_named() -> None:
    there, blind = Arrival("a", "10.0.0.1", True), Arrival("b", "10.0.0.2", False)
    refuse_unseen("ppo", Path("/home/x/checkpoints/ppo/1"), [there, there], "10.0.0.1")
    with pytest.raises(
        ConfigError,
        match=r"^ppo: /home/x/checkpoints/ppo/1, a folder on node 10\.0\.0\.1, is not seen on node 10\.0\.0\.2 of",
    ):
        refuse_unseen("ppo", Path("/home/x/checkpoints/ppo/1"), [there, blind, blind], "10.0.0.1")


def test_a_node_with_another_program_is_named() -> None:
    mine, theirs = (
        "plumbline 0.9.0 (source 5f2c01aa) with torch 2.13.0",
        "plumbline 0.9.0 (source 5f2c01aa) with torch 2.12.1",
    )
    same, other = Arrival("a", "10.0.0.1", True, mine), Arrival("b", "10.0.0.2", True, theirs)
    refuse_others("ppo", mine, [same, same], "10.0.0.1")
    with pytest.raises(ConfigError) as refused:
        refuse_others("ppo", mine, [same, other, other, Arrival("c", "10.0.0.3", True)], "10.0.0.1")
    assert str(refused.value) == (
        f"ppo: found an older version on node 10.0.0.3, {theirs} on node 10.0.0.2 of the Ray cluster, expected {mine} as on "
        "node 10.0.0.1; install the same there (pip install -c constraints.txt -e .[ray]), or set runtime.processes=1"
    )


def test_ranks_are_compared_with_the_stage_before_they_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop: Any = Shop(tmp_path)
    ray: Any = types.ModuleType("ray")
    ray.get = lambda arrivals: arrivals
    ray.util = types.SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")
    monkeypatch.setitem(sys.modules, "ray", ray)

    def on_nodes(*found: tuple[bool, str]) -> list[Any]:
        def answers(sees: bool, runs: str) -> Any:
            return lambda mark: Arrival("b", "10.0.0.2", sees and mark.exists(), runs)

        actors = [types.SimpleNamespace(arrive=types.SimpleNamespace(remote=answers(*one))) for one in found]
        return gang_on_ray._arrivals(shop, actors)

    same = (True, fingerprint.program())
    assert [arrival.runs for arrival in on_nodes(same, same)] == [same[1]] * 2
    with pytest.raises(ConfigError, match=r"^ppo: found another one on node 10\.0\.0\.2"):
        on_nodes(same, (True, "another one"))
    with pytest.raises(ConfigError, match=r"is not seen on node 10\.0\.0\.2"):
        on_nodes(same, (False, same[1]))
    assert not list(tmp_path.iterdir())


def test_a_program_is_its_version_its_code_and_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "PROJECT", tmp_path)
    (tmp_path / "tasks").mkdir()
    (code := tmp_path / "tasks" / "learn.py").write_text("rate = 1", encoding="utf-8")
    first = fingerprint.program()
    assert f"plumbline {metadata.version('plumbline')} (" in first and first.endswith(torch.__version__)
    (tmp_path / "tasks" / "notes.txt").touch()
    assert fingerprint.program() == first
    code.write_text("rate = 2", encoding="utf-8")
    assert fingerprint.program() != first


def test_ranks_talk_through_the_network_that_has_their_address() -> None:
    assert network_device("127.0.0.1") == "lo"
    assert network_device("203.0.113.77") is None


class Shop:
    stage = "ppo"
    told_to_stop = False

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints


class Script:
    """Two ranks of which each look tells something else."""

    def __init__(self, *looks: Callable[["Script"], None], silent: tuple[int, ...] = ()) -> None:
        self.parts: dict[Any, int] = {"zero": 0, "one": 1}
        self.metrics: dict[str, float] = {}
        self.words: dict[int, bytes] = {}
        self.lost: dict[int, None] = {}
        self.ended: list[int] = []
        self._looks, self._silent = list(looks), list(silent)

    def take(self, seconds: float) -> None:
        if self._looks:
            self._looks.pop(0)(self)

    def silent(self) -> list[int]:
        return self._silent

    def end(self, number: int) -> None:
        self.ended.append(number)


def is_lost(script: Script) -> None:
    del script.parts["one"]
    script.lost[1] = None


def raises(error: BaseException, name: str) -> Callable[[Script], None]:
    def look(script: Script) -> None:
        number = script.parts.pop(name)
        script.words[number] = gang.word(error)

    return look


def watched(script: Any, folder: Path) -> dict[str, float]:
    shop: Any = Shop(folder)
    return gang_on_ray._watched(script, shop, [Arrival("a", "10.0.0.1", True), Arrival("b", "10.0.0.2", True)])


def test_a_lost_rank_is_named_with_its_node_although_others_complain(tmp_path: Path) -> None:
    (tmp_path / "step-00000006.pt").touch()
    script = Script(raises(RankLost("connection closed"), "zero"), is_lost)
    with pytest.raises(
        WorkerKilled,
        match=r"^ppo: rank 1 of 2 \(node 10\.0\.0\.2\) was killed \(out of memory, or its machine is lost\?\), and the others "
        r"ended with it; its last checkpoint is step 6; the same command goes on from there$",
    ):
        watched(script, tmp_path)


def test_what_the_user_can_put_right_counts_most(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^row 3$"):
        watched(Script(raises(RankLost("closed"), "zero"), raises(DataError("row 3"), "one")), tmp_path)
    with pytest.raises(gang.RankFailed, match=r"(?s)^ppo: rank 1 of 2 \(node 10\.0\.0\.2\) failed:.*KeyError"):
        watched(Script(raises(KeyError("x"), "one"), raises(RankLost("closed"), "zero")), tmp_path)


def test_others_are_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang, "LINGER_SECONDS", 0.05)
    with pytest.raises(DataError, match=r"^row 3$"):
        watched(Script(raises(DataError("row 3"), "one")), tmp_path)


def test_a_silent_rank_is_ended(tmp_path: Path) -> None:
    script = Script(silent=(1,))
    with pytest.raises(WorkerKilled, match=r"rank 1 of 2 \(node 10\.0\.0\.2\) has shown no sign of life for 30 s"):
        watched(script, tmp_path)
    assert script.ended == [1]


def test_metrics_are_those_of_the_first(tmp_path: Path) -> None:
    def all_done(script: Script) -> None:
        script.parts.clear()
        script.metrics = {"loss": 1.0}

    assert watched(Script(all_done), tmp_path) == {"loss": 1.0}


def test_on_one_machine_the_signal_is_told(tmp_path: Path) -> None:
    shop: Any = Shop(tmp_path)
    killed = gang.why(shop, 2, {}, {1: -signal.SIGKILL}, None, {})
    assert str(killed).startswith(
        "ppo: rank 1 of 2 was killed (signal 9; out of memory?), and the others ended with it"
    )
    shop.told_to_stop = True
    assert isinstance(gang.why(shop, 2, {}, {1: -signal.SIGTERM}, None, {}), Interrupted)
    assert isinstance(gang.why(shop, 2, {}, {1: None}, None, {}), WorkerKilled)


def test_the_peak_of_memory_is_that_of_the_largest_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    class Three(Ranks):
        number, count = 1, 3

        def gather(self, value: Any) -> list[Any]:
            return [value, {**value, PEAK: 3e6}, {"cost/seconds": 1.0}]  # where the kernel does not tell it

    def of_rank(device: str, aside: Path) -> Any:
        return types.SimpleNamespace(log=types.SimpleNamespace(flush=list))

    monkeypatch.setattr(logging, "disable", list)
    shop: Any = types.SimpleNamespace(runtime=types.SimpleNamespace(threads=1), of_rank=of_rank)
    together: Any = Three
    metrics = gang.part(lambda own, _: {"kl": 1.0}, shop, None, 1, "cpu", together, None)
    assert metrics == {"kl": 1.0, PEAK: 3e6}


def test_a_rank_hands_over_what_it_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    rank = gang_on_ray._Rank()
    rank._said.put(logging.LogRecord("plumbline", logging.WARNING, "", 0, "said", None, None))
    gang_on_ray._repeat(rank.news())
    assert caplog.messages == ["said"] and rank.news() == []


def test_a_folder_is_looked_for_with_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray: Any = types.ModuleType("ray")
    ray.get_runtime_context = lambda: types.SimpleNamespace(get_node_id=lambda: "a")
    ray.util = types.SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(gang_on_ray, "LOOK_SECONDS", 0.2)
    (mark := tmp_path / "mark").touch()
    runs = fingerprint.program()
    assert gang_on_ray._Rank().arrive(mark) == Arrival("a", "10.0.0.1", True, runs)
    assert gang_on_ray._Rank().arrive(tmp_path / "elsewhere") == Arrival("a", "10.0.0.1", False, runs)
