"""A stage on several processes of this machine: they are started, watched, and ended together.

The stage's own process holds the locks, the MLflow run and the draft of the artifact, and waits. Torch's elastic launcher starts
the ranks. The first one has the stage's workshop; the others have one that writes nowhere. ``part`` and ``why`` are also those of
ranks that Ray places (``gang_on_ray``).
"""

import logging
import logging.handlers
import multiprocessing
import multiprocessing.util
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tasks.engine.checkpoint import latest_step
from tasks.engine.collective import Collective, RankLost
from tasks.engine.cost import PEAK, Meter
from tasks.engine.errors import Interrupted, PlumblineError, WorkerKilled
from tasks.engine.parent import die_with_parent
from tasks.engine.ranks import among, here

if TYPE_CHECKING:
    from tasks.engine.stage import Workshop

BEAT_SECONDS = 1.0
STUCK_SECONDS = 30.0
"""Without a beat; a step may take as long as it likes, its rank beats from a thread of its own."""
LINGER_SECONDS = 20
"""For the other ranks to end by themselves once one has failed."""
COLLECTIVE_MINUTES = 30
"""Longest time that ranks wait for one another, for instance while the first one saves."""
LOST = ("gloo/transport", "ncclRemoteError", "ncclSystemError")
"""What torch's own collectives say of a rank that is lost, in networks that ranks divide."""
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


class RankFailed(RuntimeError):
    """A rank raised what no user can put right."""


class _Post(NamedTuple):
    """What every rank is told."""

    folder: Path
    """Of the gang, as long as it is wanted."""
    parent: int
    story: Callable[..., Mapping[str, float]]
    devices: Sequence[str]
    sentences: Any
    """Queue of what the first rank logs."""
    beats: Any
    """In shared memory: when each rank last showed that it is alive, seconds of the monotonic clock; 0 before it began."""
    processes: Any
    """In shared memory: their numbers."""


def run_ranks(
    story: Callable[..., Mapping[str, float]], shop: "Workshop", config: Any, devices: Sequence[str]
) -> dict[str, float]:
    """Have one rank on each device tell a stage's story; returns the metrics of the first.

    Raises:
        PlumblineError: what a rank raised.
        WorkerKilled: a rank was killed, or did not move any more.
        RankFailed: a rank raised something else.
    """
    logging.getLogger("torch.distributed.elastic").propagate = False  # what it reports is told in one sentence
    logging.getLogger("torch.distributed.elastic").addHandler(logging.NullHandler())
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # they meet in a file; no port is opened for it
    spawn, count = multiprocessing.get_context("spawn"), len(devices)
    sentences, beats, processes = spawn.Queue(), spawn.RawArray("d", count), spawn.RawArray("l", count)
    listener = logging.handlers.QueueListener(sentences, _Repeat())
    listener.start()
    try:
        with tempfile.TemporaryDirectory(prefix="plumbline-ranks-") as name:
            folder = Path(name)
            post = _Post(folder, os.getpid(), story, devices, sentences, beats, processes)
            launch = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=count,
                run_id="ranks",
                rdzv_backend="c10d",
                rdzv_endpoint=str(folder / "meeting"),
                rdzv_configs={"store_type": "file"},
                local_addr="127.0.0.1",
                max_restarts=0,
                logs_specs=DefaultLogsSpecs(str(folder / "logs")),
                shutdown_timeout=LINGER_SECONDS,
            )
            return _watched(elastic_launch(launch, _rank), post, shop, config)
    finally:
        listener.stop()
        sentences.close()


def _watched(launch: Callable[..., dict[int, Any]], post: _Post, shop: "Workshop", config: Any) -> dict[str, float]:
    """Wait for the launcher, which runs in a thread so that it leaves this process's signals alone."""
    ended: Future[dict[int, Any]] = Future()

    def start() -> None:
        try:
            ended.set_result(launch(post, shop, config))
        except BaseException as error:
            ended.set_exception(error)

    thread = threading.Thread(target=start, name="launcher of ranks", daemon=True)
    thread.start()
    stuck = None
    try:
        while not ended.done():
            wait([ended], timeout=0.2)
            silent = [n for n, beat in enumerate(post.beats) if beat and time.monotonic() - beat > STUCK_SECONDS]
            if silent and stuck is None:
                stuck = silent[0]
                _kill(post.processes[stuck])
        metrics: dict[str, float] = ended.result()[0]
        return metrics
    except ChildFailedError as error:
        failed = {number: failure.exitcode for number, failure in error.failures.items()}
        raise why(shop, len(post.devices), _words(post.folder), failed, stuck, {}) from None
    finally:
        if not ended.done():  # this stage is being ended
            for process in post.processes:
                _kill(process)


def _kill(process: int) -> None:
    """End a rank that has begun."""
    if process:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def why(
    shop: "Workshop",
    count: int,
    words: Mapping[int, bytes],
    failed: Mapping[int, int | None],
    stuck: int | None,
    places: Mapping[int, str],
) -> Exception:
    """Which rank failed, and why: what others raised because they lost it is no reason.

    Args:
        shop: the stage's.
        count: of the ranks.
        words: what ranks wrote down before they ended.
        failed: exit status of those that ended, negative for a signal, None where nobody knows it.
        stuck: the rank that was ended because it showed no sign of life.
        places: where ranks are, in words, if not on this machine.
    """
    raised: dict[int, tuple[BaseException | None, str]] = {}
    for number, content in words.items():
        with suppress(EOFError, pickle.UnpicklingError):  # killed while it wrote
            raised[number] = pickle.loads(content)
    step = latest_step(shop.checkpoints)
    left = "it has no checkpoint and starts again" if step is None else f"its last checkpoint is step {step}"
    ending = f"{left}; the same command goes on from there"

    def name(number: int) -> str:
        return f"{shop.stage}: rank {number} of {count}{places.get(number, '')}"

    if stuck is not None:
        return WorkerKilled(
            f"{name(stuck)} has shown no sign of life for {STUCK_SECONDS:.0f} s and was ended, and the others with it; {ending}"
        )
    for number, (cause, told) in sorted(raised.items()):
        if isinstance(cause, PlumblineError):
            return cause
        if not (isinstance(cause, RankLost) or any(sign in told for sign in LOST)):
            return RankFailed(f"{name(number)} failed:\n{told}")
    failed = {number: code for number, code in failed.items() if number not in raised}
    number = min(failed, default=min(set(range(count)) - raised.keys(), default=0))
    code = failed.get(number, -signal.SIGKILL)
    if (
        shop.told_to_stop and code is not None and code != -signal.SIGKILL
    ):  # what tells a run may tell its ranks too, before they are deaf to it
        return Interrupted(f"{shop.stage}: stopped, as it was told to, while its ranks started; {left}")
    ended, how = "was killed", "out of memory, or its machine is lost?"
    if code is not None:
        ended = "ended" if code >= 0 else "was killed"
        how = f"exit status {code}" if code >= 0 else f"signal {-code}" + ("; out of memory?" if code == -9 else "")
    return WorkerKilled(f"{name(number)} {ended} ({how}), and the others ended with it; {ending}")


def _words(folder: Path) -> dict[int, bytes]:
    """What ranks wrote down before they ended."""
    found = {}
    for path in folder.glob("error.*"):
        with suppress(OSError):
            found[int(path.suffix[1:])] = path.read_bytes()
    return found


class _Repeat(logging.Handler):
    """In the stage's process: say what the first rank says."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _rank(post: _Post, shop: "Workshop", config: Any) -> dict[str, float]:
    """What each rank runs; ends the process when it fails, so that the launcher ends the others."""
    number = int(os.environ["RANK"])
    die_with_parent()
    for asked_politely in (signal.SIGINT, signal.SIGTERM):  # a terminal and a scheduler tell every process of a run
        signal.signal(asked_politely, signal.SIG_IGN)
    threading.Thread(target=_beat, args=(post, number), name="beats", daemon=True).start()
    try:
        metrics = part(
            post.story, shop, config, number, post.devices[number], lambda: _together(post, number), post.sentences
        )
        # When the launcher has the metrics: a process group that is destroyed can wait for ever for its own threads.
        multiprocessing.util.Finalize(None, os._exit, args=(0,), exitpriority=-100)
        return metrics
    except BaseException as error:
        with suppress(OSError):
            (post.folder / f"error.{number}").write_bytes(word(error))
        os._exit(1)


def part(
    story: Callable[..., Mapping[str, float]],
    shop: "Workshop",
    config: Any,
    number: int,
    device: str,
    together: Callable[[], Collective],
    sentences: Any,
) -> dict[str, float]:
    """Tell a stage's story as one of its ranks, in a process of its own; the peak of memory is the largest of any rank's.

    Args:
        story: the stage's.
        shop: the stage's.
        config: the stage's.
        number: of the rank; only the first one logs and writes.
        device: the rank's.
        together: returns the process group when every rank has come.
        sentences: queue of what the first rank logs.
    """
    if number:
        logging.disable()
        warnings.simplefilter("ignore")
    else:
        logging.getLogger().handlers[:] = [logging.handlers.QueueHandler(sentences)]
    torch.set_num_threads(shop.runtime.threads)
    with among(together()), tempfile.TemporaryDirectory() as aside:
        own = shop.of_rank(device, Path(aside) if number else None)
        meter = Meter(device)
        metrics = dict(story(own, config))
        own.log.flush()
        costs = here().gather(meter.read())  # nobody leaves while another may still ask
    peaks = [cost[PEAK] for cost in costs if PEAK in cost]
    return metrics | ({PEAK: max(peaks)} if peaks else {})


def _together(post: _Post, number: int) -> Collective:
    """The process group, which meets in a file and talks through the loopback device."""
    os.environ.update(LOOPBACK)
    count = len(post.devices)
    store = dist.FileStore(str(post.folder / "store"), count)  # type: ignore[attr-defined]
    return join(store, number, count, post.devices[number])


def join(store: Any, number: int, count: int, device: str) -> Collective:
    """The process group of ranks that meet at a store."""
    if on_gpu := device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=store,
        rank=number,
        world_size=count,
        timeout=timedelta(minutes=COLLECTIVE_MINUTES),
    )
    group = dist.group.WORLD
    assert group is not None
    return Collective(group)


def _beat(post: _Post, number: int) -> None:
    """Show that this rank is alive; end it when nobody looks any more."""
    post.processes[number] = os.getpid()
    while post.folder.is_dir() and os.getppid() == post.parent:
        post.beats[number] = time.monotonic()
        time.sleep(BEAT_SECONDS)
    os._exit(1)


def word(error: BaseException) -> bytes:
    """Why a rank ends, to be written down; an exception that cannot be pickled is told in words."""
    told = "".join(traceback.format_exception(error))
    try:
        content = pickle.dumps((error, told))
        pickle.loads(content)
    except Exception:
        content = pickle.dumps((None, told))
    return content
