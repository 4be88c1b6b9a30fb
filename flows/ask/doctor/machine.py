"""This machine: precision, cores, memory, disk, and the file system below the databases."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from flows.ask.arithmetic.memory import FP32, GIB
from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from flows.ask.processor import CPUINFO, bf16_units
from flows.process.allocator import HINT, preloaded
from flows.resolvers import available_cores
from tasks.engine.errors import PlumblineError
from tasks.engine.findings import Finding, Severity
from tasks.engine.os_errors import PROBE

REMOTE = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "lustre", "beegfs", "fuse.gcsfuse", "fuse.s3fs")
"""File systems on which SQLite's locks are not to be trusted."""
LARGE = 10_000_000
"""Parameters from which on a step is more than its overhead."""
PROGRAM = int(0.6 * GIB)
"""Of one process with torch, transformers and MLflow, before any model."""


def precision(patient: Patient) -> Iterator[Finding]:
    """bf16 is worth asking for where the device computes in it."""
    runtime = patient.config.runtime
    if runtime.precision != "bf16":
        return
    if patient.on_gpu:
        import torch

        fine = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fine = runtime.device != "cpu" or not CPUINFO.is_file() or bf16_units() is not None
    if not fine:
        yield found(
            "warning",
            "runtime.precision",
            f"bf16 on a {runtime.device} that computes it through fp32",
            "a device with bf16 arithmetic",
            "set runtime.precision=fp32: it is as fast there, and exact",
        )


def cores(patient: Patient) -> Iterator[Finding]:
    """More threads than cores wait for each other."""
    runtime, there = patient.config.runtime, available_cores()
    elsewhere = runtime.runner == "ray" and runtime.ray_cluster
    if not elsewhere and runtime.threads * runtime.processes * runtime.max_workers > there:
        ranks = f"{runtime.processes} processes of " if runtime.processes > 1 else ""
        processes = min(there, runtime.processes)
        workers = min(there // processes, runtime.max_workers)
        fewer = f" runtime.processes={processes}" if processes < runtime.processes else ""
        yield found(
            "warning",
            "runtime.threads",
            f"{runtime.threads} threads in each of {ranks}{runtime.max_workers} workers",
            f"no more than this machine's {there} cores",
            f"set runtime.threads={there // (processes * workers)}{fewer} runtime.max_workers={workers}",
        )


def allocator(patient: Patient) -> Iterator[Finding]:
    """Long rows of a larger model wait for the C library's allocator."""
    runtime = patient.config.runtime
    if runtime.device != "cpu" or runtime.runner != "processes" or sys.platform != "linux" or preloaded() is not None:
        return
    try:
        large = patient.shapes[0].parameters >= LARGE
    except PlumblineError:  # the checks of the model tell
        return
    if large:
        yield found(
            "notice",
            "runtime.runner",
            "no tcmalloc on this system",
            "it: training on long rows took a quarter less time with it, and less memory",
            f"install it (`apt install {HINT}`); stages use it where it is",
        )


def memory(patient: Patient) -> Iterator[Finding]:
    """The largest stage's forecast beside what there is."""
    config = patient.config
    try:
        stages = patient.stage_memory
    except PlumblineError:  # the checks of the model tell
        return
    if config.runtime.device.startswith("cuda") and not patient.on_gpu:
        return
    total, free = device_memory(config.runtime.device)
    largest = max(stages, key=lambda stage: stage.peak)
    needed, state = largest.peak, largest.state
    if not patient.on_gpu:
        needed, state = needed + PROGRAM, state + PROGRAM
    what = f"{largest.stage} needing about {needed / GIB:.1f} GiB, {state / GIB:.1f} of it all the time"
    lower = "take a smaller model, or lower runtime.tokens_per_microbatch and runtime.generation_batch"
    if needed > total:
        severity: Severity = "error" if state > total else "warning"
        yield found(severity, "memory", what, f"at most the {total / GIB:.1f} GiB that there are", lower)
    elif needed > free:
        there = f"at most the {free / GIB:.1f} GiB that are free"
        yield found("warning", "memory", what, there, f"end other programs, or {lower}")


def device_memory(device: str) -> tuple[int, int]:
    """Bytes in all and free now; of a container, what it is given."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return int(total), int(free)
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit, used = _number("memory.max"), _number("memory.current")  # psutil does not know what a container is given
    return (total, free) if limit is None or limit >= total else (limit, min(free, limit - (used or 0)))


def disk(patient: Patient) -> Iterator[Finding]:
    """What the policies and reward models of one run take, and the checkpoints while they are trained."""
    config = patient.config
    try:
        policy, judge = patient.shapes
    except PlumblineError:  # the check of memory has told
        return
    models = (
        3 + len(config.ppo_runs) + len(config.preference_runs) + len(config.sampling_runs)
        # Base, SFT, PPO's start, and what is trained from it.
    )
    judges = 1 + (config.independent_reward_model != "none") + config.labeler_folds
    kept = FP32 * (models * policy.parameters + judges * judge.scalar_parameters)
    checkpoint = FP32 * (
        4 * policy.parameters + 3 * judge.scalar_parameters
    )  # weights, average, two moments; of one stage
    folder = config.tracking.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if kept + 2 * checkpoint > free >= PROBE:  # with less, the check of folders has told
        yield found(
            "warning" if kept + checkpoint <= free else "error",
            str(config.tracking.folder),
            f"{free / GIB:.1f} GiB free",
            f"about {(kept + 2 * checkpoint) / GIB:.1f}: {kept / GIB:.1f} for models, the rest for checkpoints",
            "free some (`python -m flows.store gc`), or choose another disk with tracking.root=...",
        )


def file_system(patient: Patient) -> Iterator[Finding]:
    """Databases on a network's file system lose their locks."""
    folder = patient.config.tracking.folder
    kind = _file_system_of(folder)
    if kind in REMOTE and patient.config.tracking.mlflow_uri is None:
        yield found(
            "warning",
            str(folder),
            f"a network file system ({kind}) below the databases of MLflow and Prefect",
            "a local disk",
            "set PLUMBLINE_HOME to one, or tracking.mlflow_uri and PREFECT_API_URL to servers: SQLite's locks fail there",
        )


def _file_system_of(folder: Path) -> str:
    """The kind of the mount that a folder is on: the longest path that leads to it, of two on one path the later."""
    above = [mount for mount in psutil.disk_partitions(all=True) if folder.is_relative_to(mount.mountpoint)]
    return max(reversed(above), key=lambda mount: len(mount.mountpoint)).fstype if above else ""


def _number(limit: str) -> int | None:
    """A figure of this process's control group; None where there is no such group, or no limit."""
    try:
        return int(Path("/sys/fs/cgroup", limit).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
