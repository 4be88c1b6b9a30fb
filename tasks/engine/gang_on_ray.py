"""A stage on several machines: Ray finds room for each rank, on whichever nodes of its cluster have it.

The stage's own process holds the locks, the MLflow run and the draft of the artifact, and waits; it occupies nothing of the
cluster. A rank is an actor, which Ray ends with the process that asked for it, wherever both are. All of them see the folder
of the store.
"""

import logging
import math
import os
import queue
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch.distributed as dist

from tasks.engine import gang
from tasks.engine.errors import ConfigError, Interrupted, WorkerKilled
from tasks.engine.fingerprint import program

if TYPE_CHECKING:
    from tasks.engine.collective import Collective
    from tasks.engine.stage import Workshop

LOOK_SECONDS = 5.0
"""For a file that was written on one machine to be seen on another."""


def needs(device: str) -> dict[str, float]:
    """What each rank asks of Ray."""
    return {"CPU": 1, "GPU": 1} if device.startswith("cuda") else {"CPU": 1}


def refuse_without_room(count: int, device: str) -> None:
    """A gang for which the cluster is too small would wait for ever.

    Raises:
        ConfigError: the nodes of the cluster, all of them empty, have no room for that many ranks.
    """
    import ray

    asked = needs(device)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(int(min(node.get(kind, 0) / amount for kind, amount in asked.items())) for node in nodes)
    if room < count:
        each, kind = ("a GPU and a CPU", "GPU") if "GPU" in asked else ("a CPU", "CPU")
        there = int(sum(node.get(kind, 0) for node in nodes))
        raise ConfigError(
            f"runtime.device is {device} and runtime.processes {count}, but the Ray cluster has {there or 'no'} {kind} on "
            f"{len(nodes)} nodes, room for {room} ranks with {each} each; set runtime.processes={max(1, room)} or add a node"
        )


def run_ranks(
    story: Callable[..., Mapping[str, float]], shop: "Workshop", config: Any, devices: Sequence[str]
) -> dict[str, float]:
    """Have one rank for each device tell a stage's story, where Ray has room; returns the metrics of the first.

    Raises:
        PlumblineError: what a rank raised, the cluster is too small, or a node has another program or does not see the store.
        WorkerKilled: a rank was killed, or did not move any more.
        RankFailed: a rank raised something else.
    """
    import ray

    with _placed(shop, devices) as actors:
        try:
            found = _arrivals(shop, actors)
            order = sorted(
                range(len(actors)), key=lambda index: found[index].node
            )  # neighbours get numbers side by side
            actors, places = [actors[index] for index in order], [found[index] for index in order]
            meeting = (places[0].address, ray.get(actors[0].open_meeting.remote(places[0].address)))
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1].strip()
            raise WorkerKilled(
                f"{shop.stage}: a rank ended while it started on the Ray cluster ({cause}), expected one on each of "
                f"{len(devices)} places; every node needs this program, in the same version, and memory for it"
            ) from error
        at_work = _AtWork(actors)
        at_work.begin((story, shop, config), meeting, devices)
        return _watched(at_work, shop, places)


@contextmanager
def _placed(shop: "Workshop", devices: Sequence[str]) -> Iterator[list[Any]]:
    """An actor for each rank, as soon as there is room for all; they are ended with this context.

    Raises:
        Interrupted: told to stop while waiting.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    asked = needs(devices[0])
    room = placement_group([asked] * len(devices), strategy="PACK")
    try:
        while not room.wait(gang.BEAT_SECONDS):
            refuse_without_room(len(devices), devices[0])  # a node may be lost meanwhile
            if shop.told_to_stop:
                raise Interrupted(
                    f"{shop.stage}: stopped, as it was told to, while it waited for room on the Ray cluster"
                )
        kind = ray.remote(num_cpus=asked["CPU"], num_gpus=asked.get("GPU", 0), max_concurrency=2)(_Rank)
        yield [
            kind.options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(room, placement_group_bundle_index=index)
            ).remote()
            for index in range(len(devices))
        ]
    finally:
        remove_placement_group(room)


class Arrival(NamedTuple):
    """Where a rank is."""

    node: str
    """Ray's name of the machine."""
    address: str
    """The machine's, for the others."""
    sees: bool
    """Whether the folder of the stage's checkpoints is there, with what the stage has just put into it."""
    runs: str = "an older version"
    """The program there, in words; one that does not tell is older than this line."""


def _arrivals(shop: "Workshop", actors: Sequence[Any]) -> list[Arrival]:
    """Where each rank is, once all have started.

    Raises:
        ConfigError: one of them has another program, or does not see the folder of the store.
    """
    import ray

    mark = shop.checkpoints / f"ranks-{uuid.uuid4().hex[:8]}"
    mark.touch()
    try:
        found: list[Arrival] = ray.get([actor.arrive.remote(mark) for actor in actors])
    finally:
        mark.unlink(missing_ok=True)
    home = ray.util.get_node_ip_address()
    refuse_others(shop.stage, program(), found, home)
    refuse_unseen(shop.stage, mark.parent, found, home)
    return found


def refuse_others(stage: str, runs: str, arrivals: Sequence[Arrival], home: str) -> None:
    """Ranks of several programs would make one result, under the key of one of them.

    Raises:
        ConfigError: a rank runs something else than this process.
    """
    others = sorted({f"{arrival.runs} on node {arrival.address}" for arrival in arrivals if arrival.runs != runs})
    if others:
        raise ConfigError(
            f"{stage}: found {', '.join(others)} of the Ray cluster, expected {runs} as on node {home}; "
            "install the same there (pip install -c constraints.txt -e .[ray]), or set runtime.processes=1"
        )


def refuse_unseen(stage: str, folder: Path, arrivals: Sequence[Arrival], home: str) -> None:
    """Checkpoints and the artifact are written by one rank and read by others, so that all must see one folder.

    Raises:
        ConfigError: a rank does not.
    """
    blind = sorted({arrival.address for arrival in arrivals if not arrival.sees})
    if blind:
        raise ConfigError(
            f"{stage}: {folder}, a folder on node {home}, is not seen on node {', '.join(blind)} of the Ray cluster, expected "
            "the same folder at the same path on every node; mount a shared file system there, or set runtime.processes=1"
        )


def _watched(at_work: "_AtWork", shop: "Workshop", places: Sequence[Arrival]) -> dict[str, float]:
    """Wait for the ranks; the first one that fails ends the others, which may say why they end."""
    stuck, patience = None, math.inf
    while at_work.parts and time.monotonic() < patience:
        at_work.take(0.2)
        if stuck is None and (silent := at_work.silent()):
            stuck = silent[0]
            at_work.end(stuck)
            break
        if patience == math.inf and (at_work.words or at_work.lost):
            patience = time.monotonic() + gang.LINGER_SECONDS
    if stuck is not None or patience < math.inf:
        named = {number: f" (node {place.address})" for number, place in enumerate(places)}
        raise gang.why(shop, len(places), at_work.words, at_work.lost, stuck, named)
    return at_work.metrics


class _AtWork:
    """The ranks, as the stage's process sees them."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors
        self.parts: dict[Any, int] = {}
        """Of those that have not ended, by what Ray will have of them."""
        self.metrics: dict[str, float] = {}
        """Of the first one, when it has ended."""
        self.words: dict[int, bytes] = {}
        """Why those that failed did."""
        self.lost: dict[int, None] = {}
        """Those that were killed."""
        self._asked = {actor.news.remote(): number for number, actor in enumerate(actors)}
        self._heard: dict[int, float] = {}

    def begin(self, given: Any, meeting: tuple[str, int], devices: Sequence[str]) -> None:
        """Have them tell the story."""
        import ray

        count, once = len(self._actors), ray.put(given)
        for number, actor in enumerate(self._actors):
            self.parts[actor.tell.remote(once, number, count, meeting, devices[number])] = number

    def end(self, number: int) -> None:
        """Kill one of them."""
        import ray

        ray.kill(self._actors[number])

    def take(self, seconds: float) -> None:
        """What those that end within this time have left."""
        import ray

        for part in ray.wait(list(self.parts), timeout=seconds)[0]:
            number = self.parts.pop(part)
            self._listen(1.0)  # to what it answered before it ended
            try:
                metrics, why, said = ray.get(part)
            except ray.exceptions.RayTaskError as error:  # it could not read what it was given
                self.words[number] = gang.word(error)
                continue
            except ray.exceptions.RayError:
                self.lost[number] = None
                continue
            _repeat(said)
            if why is not None:
                self.words[number] = why
                self.end(number)  # so that those who wait for it learn that it is lost
            elif number == 0:
                self.metrics = metrics

    def silent(self) -> list[int]:
        """Ask what they have to say every second, and return those that have not answered for a long time."""
        self._listen(0)
        now, waiting, working = time.monotonic(), set(self._asked.values()), set(self.parts.values())
        for number, heard in self._heard.items():
            if number in working - waiting and now - heard > gang.BEAT_SECONDS:
                self._asked[self._actors[number].news.remote()] = number
        return sorted(n for n in waiting & working if now - self._heard.get(n, now) > gang.STUCK_SECONDS)

    def _listen(self, seconds: float) -> None:
        """Take the answers that come within this time."""
        import ray

        asked = list(self._asked)
        for answer in ray.wait(asked, num_returns=len(asked), timeout=seconds)[0] if asked else ():
            number = self._asked.pop(answer)
            with suppress(ray.exceptions.RayError):  # it is lost, which its part tells too
                _repeat(ray.get(answer))
                self._heard[number] = time.monotonic()


def _repeat(records: Sequence[logging.LogRecord]) -> None:
    """Say in the stage's process what the first rank says."""
    for record in records:
        logging.getLogger(record.name).handle(record)


class _Rank:
    """One rank, an actor: a thread tells the story, another answers."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self._meeting: Any = None

    def arrive(self, mark: Path) -> Arrival:
        """Where this is, and whether the file is seen here."""
        import ray

        end = time.monotonic() + LOOK_SECONDS
        while not mark.exists() and time.monotonic() < end:
            time.sleep(0.1)
        node, address = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
        return Arrival(node, address, mark.exists(), program())

    def news(self) -> list[logging.LogRecord]:
        """What the rank has logged since it was last asked."""
        return [self._said.get() for _ in range(self._said.qsize())]

    def open_meeting(self, address: str) -> int:
        """Let the ranks meet at a port of this machine's address in the cluster; returns the port."""
        listening = socket.create_server((address, 0))
        port: int = listening.getsockname()[1]
        store, entry = dist.TCPStore, listening.detach()  # type: ignore[attr-defined]
        self._meeting = store(address, port, is_master=True, wait_for_workers=False, master_listen_fd=entry)
        return port

    def tell(
        self, given: Any, number: int, count: int, meeting: tuple[str, int], device: str
    ) -> tuple[dict[str, float], bytes | None, list[logging.LogRecord]]:
        """The story; returns its metrics, or else why it ended, and what was said last."""
        story, shop, config = given
        logging.getLogger().setLevel(logging.WARNING)  # as in a process of which Ray knows nothing
        device = "cuda:0" if device.startswith("cuda") else device  # Ray shows each its own card alone
        together = partial(_together, number, count, meeting, device)
        try:
            metrics = gang.part(story, shop, config, number, device, together, self._said)
        except BaseException as error:
            return {}, gang.word(error), self.news()
        return metrics, None, self.news()


def _together(number: int, count: int, meeting: tuple[str, int], device: str) -> "Collective":
    """The process group, which meets at the first rank and talks through the network that Ray uses."""
    import ray

    own = network_device(ray.util.get_node_ip_address())
    for name in gang.LOOPBACK:
        if own is not None:
            os.environ.setdefault(name, own)
    patience = timedelta(minutes=gang.COLLECTIVE_MINUTES)
    store = dist.TCPStore(*meeting, is_master=False, timeout=patience)  # type: ignore[attr-defined]
    return gang.join(store, number, count, device)


def network_device(address: str) -> str | None:
    """Of this machine, with that address: the name of a host need not lead to a network that others reach."""
    import psutil

    found = [name for name, own in psutil.net_if_addrs().items() if address in (entry.address for entry in own)]
    return found[0] if found else None
