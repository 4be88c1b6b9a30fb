"""Ranks as processes of their own, for what needs torch's default process group; they are forked from one that has imported."""

import multiprocessing
import os
import pickle
import tempfile
import traceback
from pathlib import Path
from typing import Any

SECONDS = 240


def in_processes(count: int, module: str, function: str, *args: Any) -> list[Any]:
    """What a function of a module returns on each of so many ranks.

    Raises:
        AssertionError: one of them failed; what it said.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.unit.test_ranks", "torch.distributed.fsdp"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [
            context.Process(target=_rank, args=(folder, number, count, module, function, args), daemon=True)
            for number in range(count)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(SECONDS)
        for number, rank in enumerate(ranks):
            told = folder / f"error.{number}"
            assert rank.exitcode == 0, told.read_text() if told.is_file() else f"rank {number}: {rank.exitcode}"
        return [pickle.loads((folder / f"found.{number}").read_bytes()) for number in range(count)]


def _rank(folder: Path, number: int, count: int, module: str, function: str, args: tuple[Any, ...]) -> None:
    import importlib
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    from tasks.engine.collective import Collective
    from tasks.engine.ranks import among

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        store = dist.FileStore(str(folder / "store"), count)
        dist.init_process_group("gloo", store=store, rank=number, world_size=count, timeout=timedelta(seconds=60))
        with among(Collective(dist.group.WORLD)):
            found = getattr(importlib.import_module(module), function)(*args)
        (folder / f"found.{number}").write_bytes(pickle.dumps(found))
        dist.barrier()
    except BaseException:
        (folder / f"error.{number}").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)
