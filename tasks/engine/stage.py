"""What every ``task.py`` does around its story: reuse or lock, track, show progress, resume, publish."""

import copy
import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from filelock import FileLock, Timeout

from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.checkpoint import Learner, latest_step, resumable
from tasks.engine.config import Config
from tasks.engine.context import StageContext, StageName
from tasks.engine.cost import Meter
from tasks.engine.digests import digest_if_changed, share_digests
from tasks.engine.errors import ConfigError, Interrupted
from tasks.engine.fingerprint import dependencies, fingerprint
from tasks.engine.memory import give_back
from tasks.engine.os_errors import readable_os_errors
from tasks.engine.progress import Reporter
from tasks.engine.ranks import here
from tasks.engine.shared import store_at
from tasks.engine.stop import StopSign
from tasks.engine.tracking import NoLog, RunLog, knows, open_run, record_reuse, stage_run

MEMORY = "mlflow_run"
"""File beside the checkpoints that remembers the MLflow run of an unfinished stage."""
logger = logging.getLogger("plumbline")

Metrics = Mapping[str, float]
"""What a stage's story returns: its final figures."""
Configured = TypeVar("Configured", bound=Config)


class Found(NamedTuple):
    """What a stage came to."""

    ref: ArtifactRef
    found: bool
    """Whether the artifact was in the store instead of made."""


class Workshop:
    """What a stage's story gets: its inputs opened, a folder to fill, and a log."""

    def __init__(
        self,
        name: StageName,
        made: str,
        store: ArtifactStore,
        inputs: Mapping[str, ArtifactRef],
        folder: Path,
        checkpoints: Path,
        log: RunLog,
        context: StageContext,
        sign: StopSign,
        report: Reporter,
    ) -> None:
        self.stage, self.about, self.key = str(name), name.about, f"{name}/{made}"
        self.store, self.inputs = store, inputs
        self.folder, self.checkpoints, self.log = folder, checkpoints, log
        self.context, self.runtime = context, context.runtime
        self._sign, self._report = sign, report

    def of_rank(self, device: str, aside: Path | None) -> "Workshop":
        """The same for one of several ranks; one that has a folder ``aside`` writes there, and tells nobody."""
        share_digests(self._sign.folder)
        shop = copy.copy(self)
        shop.runtime = self.runtime.model_copy(update={"device": device})
        shop.context = self.context.model_copy(update={"runtime": shop.runtime})
        if aside is not None:
            shop.folder, shop.log = aside, NoLog()
            shop._sign, shop._report = StopSign(self.store.root, ""), Reporter(None, self.stage)
        return shop

    def input(self, name: str) -> Path:
        """The verified folder of one input."""
        return self.store.open(self.inputs[name])

    @property
    def told_to_stop(self) -> bool:
        """Whether the run was."""
        return self._sign.asked()

    def train(self, learner: Learner) -> Iterator[dict[str, float]]:
        """Run a learner to its end, from its last checkpoint if there is one; yields the metrics of every step.

        A learner that goes on from a checkpoint yields the metrics of that checkpoint's step first.

        Raises:
            Interrupted: the run was told to stop; the learner's state is saved.
        """
        self._sign.begin_training(self.stage)
        reached = latest_step(self.checkpoints)
        self._report.count(learner.total_steps, "step", reached or 0, self.checkpoints)
        steps = resumable(
            learner,
            self.checkpoints,
            self.runtime.checkpoint_every,
            self._sign.asked,
            seconds=60 * self.runtime.checkpoint_minutes,
            before_saving=self.log.flush,  # a resumed run then misses no step
        )
        try:
            if here().once(self._sign.asked):
                came = "before its first step" if reached is None else f"at step {reached} of {learner.total_steps}"
                raise Interrupted(f"stopped {came}, as it was told to")
            for step, metrics in steps:
                self._report.at(step, metrics)
                self.log.metrics(metrics, step)
                yield metrics
        except Interrupted as stopped:
            words = f"{self.stage}: {stopped}"
            self._sign.saved(self.stage, words)
            raise Interrupted(words) from None

    def uses(self, file: Path, name: str, rows: int, context: str) -> None:
        """Log a data file as a dataset input of the stage's run: its name, digest, size, and what it was used for."""
        self.log.dataset(name, digest_if_changed(file), self.place(file), rows, context)

    def place(self, file: Path) -> str:
        """Path of a file below the store's root; what lies in the draft has the place that it is about to get."""
        if file.is_relative_to(self.folder):
            return f"{self.key}/{file.relative_to(self.folder).as_posix()}"
        return file.relative_to(self.store.root).as_posix()

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Reporter]:
        """Count something that the stage does; what is yielded has ``update()``."""
        self._report.count(total, unit)
        yield self._report


@contextmanager
def gpu_slots(store: ArtifactStore, device: str, sign: StopSign, count: int = 1) -> Iterator[list[str]]:
    """The device of each rank, with at most one heavy stage on each GPU of this machine.

    ``cuda`` takes the first GPUs that are free, ``cuda:1`` waits for that one, ``cpu`` waits for nothing. A file lock is
    used because the kernel frees it when its holder dies, which a server-side concurrency slot does not.
    """
    if not device.startswith("cuda"):
        yield [device] * count
        return
    import torch

    names = [device] if ":" in device else [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if not names:
        raise ConfigError(f"runtime.device is {device}, and torch sees no GPU here; use runtime=cpu or another machine")
    if len(names) < count:
        raise ConfigError(
            f"runtime.processes is {count} and runtime.device {device}, which is {len(names)} GPU here, expected one for each "
            f"process; set runtime.processes={len(names)}, or runtime.device=cuda on a machine with more"
        )
    # By serial number: a runner may show each of its workers another card as cuda:0.
    cards = [str(torch.cuda.get_device_properties(torch.device(name)).uuid) for name in names]
    locks = [FileLock(store.root / "locks" / f"gpu-{card}.lock") for card in cards]
    while not sign.asked():
        with ExitStack() as held:
            free = []
            for name, lock in zip(names, locks, strict=True):
                with suppress(Timeout):
                    held.enter_context(lock.acquire(timeout=1))
                    free.append(name)
                if len(free) == count:
                    yield free
                    return
    raise Interrupted("stopped, as it was told to, while it waited for a free GPU")


def run_stage(
    name: StageName,
    config: Configured,
    context: StageContext,
    inputs: Mapping[str, ArtifactRef],
    load: Callable[[], Callable[[Workshop, Configured], Metrics]],
    *,
    package: str,
    divided: bool = False,
) -> Found:
    """Find the stage's artifact or make it.

    Args:
        name: of the stage; also of the artifact's folder and of the MLflow run.
        config: the stage's configuration.
        context: store, tracking, runtime.
        inputs: artifacts the stage reads.
        load: returns the stage's story, which fills ``workshop.folder`` and returns the stage's final metrics; called, and so
            imported, only if there is a story to tell.
        package: the stage's package, whose source is part of the fingerprint.
        divided: whether ``runtime.processes`` ranks tell the story together.

    Raises:
        ArtifactError: the store cannot be written or an input is damaged.
        Interrupted: the run was told to stop; a training stage has saved its state.
        TrainingDiverged: a training metric is no longer finite.
    """
    stage = str(name)
    store = store_at(context.store, context.shared)
    sign = StopSign(store.root, context.parent_run_id)
    share_digests(sign.folder)
    depends_on = dependencies(package, config, inputs, store.root.parent)
    made = fingerprint(depends_on)
    params = config.tracked_params(name.group)
    tags = {f"input.{given}": ref.digest for given, ref in inputs.items()} | {"fingerprint": made}
    report = Reporter(sign.folder, stage)
    with report, readable_os_errors(store.root), store.in_use(), store.lock(stage, made, sign.asked):
        found = store.sound(stage, made)
        memory = store.checkpoints(stage, made) / MEMORY
        if found is not None:
            if memory.is_file():  # killed when it had published and not yet said so
                close_published(context, memory.read_text(encoding="utf-8").strip(), found)
            store.forget_checkpoints(stage, made)
            reuse(name, config, context, inputs, found)
            return Found(found, True)
        with ExitStack() as stack:
            stack.callback(give_back)
            stack.callback(gc.collect)  # before it
            stack.callback(sign.end_training, stage)
            count = context.runtime.processes if divided else 1
            on_ray = count > 1 and context.runtime.runner == "ray"  # who gives ranks their cards, on whatever machine
            device = "cpu" if on_ray else context.runtime.device
            devices = stack.enter_context(gpu_slots(store, device, sign, count))
            log = stack.enter_context(stage_run(context, stage, params, tags, memory))
            draft = stack.enter_context(store.publish(stage, made, inputs, depends_on))
            here = context.model_copy(update={"runtime": context.runtime.model_copy(update={"device": devices[0]})})
            shop = Workshop(name, made, store, inputs, draft.folder, memory.parent, log, here, sign, report)
            story = load()
            import torch  # what is found in the store does without

            torch.set_num_threads(context.runtime.threads)
            began, meter = time.time(), Meter(here.runtime.device if count == 1 else "cpu")  # which waits for ranks
            of_ranks = [context.runtime.device] * count if on_ray else devices
            told = story(shop, config) if count == 1 else told_by_ranks(story, shop, config, of_ranks)
            draft.metrics = meter.read() | {metric: float(value) for metric, value in told.items()}
            work = {"plumbline.began": f"{began:.3f}"}
            log.metrics({"stage/seconds": time.time() - began})
            draft.run_id = log.run_id
            final = {f"final/{metric}": value for metric, value in draft.metrics.items()}
            log.metrics(final)
            log.flush()  # before the artifact is there: whoever finds it finds all its metrics
        assert draft.ref is not None
        close_published(context, log.run_id, draft.ref, work)
        store.forget_checkpoints(stage, made)
        report.end("made")
        return Found(draft.ref, False)


def told_by_ranks(
    story: Callable[[Workshop, Configured], Metrics], shop: Workshop, config: Configured, devices: list[str]
) -> Metrics:
    """The story told by one rank on each device, of this machine or of those that Ray has."""
    if shop.runtime.runner == "ray":
        from tasks.engine.gang_on_ray import run_ranks
    else:
        from tasks.engine.gang import run_ranks  # torch.distributed, which one process does without

    return run_ranks(story, shop, config, devices)


def close_published(
    context: StageContext, run_id: str, ref: ArtifactRef, work: Mapping[str, str] | None = None
) -> None:
    """Say in the run that made an artifact where it lies."""
    if knows(context.tracking_uri, run_id):
        log = open_run(context.tracking_uri, run_id)
        log.tags({"artifact": ref.key, "digest": ref.digest, **(work or {})})
        log.finish("FINISHED")


def reuse(
    name: StageName, config: Config, context: StageContext, inputs: Mapping[str, ArtifactRef], found: ArtifactRef
) -> None:
    """Record that a stage was found in the store instead of run."""
    manifest = store_at(context.store, context.shared).manifest(found.stage, found.fingerprint)
    assert manifest is not None
    tags = {f"input.{given}": ref.digest for given, ref in inputs.items()} | {
        "fingerprint": found.fingerprint,
        "artifact": found.key,
        "digest": found.digest,
    }
    params = config.tracked_params(name.group)
    final = {f"final/{metric}": value for metric, value in manifest.metrics.items()}
    record_reuse(context, str(name), params, tags, final, manifest.run_id)
    Reporter(StopSign(context.store, context.parent_run_id).folder, str(name)).end("found")
