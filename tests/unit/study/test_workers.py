"""Real processes, with work that takes no time."""

import os
import time
from pathlib import Path

import pytest

from flows.config import RLHFConfig, load
from flows.study.points import Point
from flows.study.records import PointRecord
from flows.study.workers import Job, run_jobs
from tasks.engine.errors import ConfigError


def fake(point: Point, config: RLHFConfig, fingerprint: str, study_run: str, number: int) -> PointRecord:
    """What the setting says: die, raise, wait for a file, or just say which process this is."""
    action, _, argument = point.setting.partition(" ")
    if action == "die":
        os._exit(7)
    if action == "raise":
        raise ConfigError("ppo.beta: not today\nsecond line")
    if action == "bug":
        raise KeyError("x")
    if action == "meet":  # both of two points must be under way at once
        Path(argument, str(point.seed)).touch()
        end = time.monotonic() + 60
        while len(list(Path(argument).iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.01)
    metrics = {"pid": float(os.getpid()), "others": float(len(list(Path(argument).iterdir()))) if argument else 0.0}
    return PointRecord(point=point, fingerprint=fingerprint, seconds=0.0, run_id=study_run, metrics=metrics)


CONFIG = load(["scale=miniature"])


def run(settings: list[tuple[str, int]], workers: int) -> list[PointRecord]:
    points = [Point(kind="policy", setting=setting, seed=seed, overrides=()) for setting, seed in settings]
    done: list[PointRecord] = []
    jobs = [Job(point, CONFIG, point.name, "study", number) for number, point in enumerate(points)]
    run_jobs(jobs, fake, workers, set(), done.append)
    assert {record.point for record in done} == set(points)
    return done


def test_failures_are_recorded_and_the_rest_runs() -> None:
    by_setting = {item.point.setting: item for item in run([("die", 1), ("raise", 1), ("bug", 1), ("fine", 1)], 1)}
    assert by_setting["die"].error == "its process ended with status 7 before it could say why"
    assert by_setting["raise"].error == "ConfigError: ppo.beta: not today"
    assert by_setting["bug"].error == "KeyError: 'x'"
    assert by_setting["fine"].error is None
    assert by_setting["fine"].run_id == "study"
    assert by_setting["fine"].metrics["pid"] != os.getpid()


@pytest.mark.slow
def test_two_points_at_a_time(tmp_path: Path) -> None:
    records = run([(f"meet {tmp_path}", 1), (f"meet {tmp_path}", 2), ("after", 1)], 2)
    together = [item for item in records if item.point.setting.startswith("meet")]
    assert all(item.metrics["others"] == 2 for item in together)
    assert len({item.metrics["pid"] for item in records}) == 2  # a worker serves several points


@pytest.mark.slow
def test_an_interrupt_ends_the_workers() -> None:
    pids: list[int] = []

    def interrupt(record: PointRecord) -> None:
        pids.append(int(record.metrics["pid"]))
        raise KeyboardInterrupt

    points = [Point(kind="policy", setting="fine", seed=seed, overrides=()) for seed in (1, 2, 3)]
    with pytest.raises(KeyboardInterrupt):
        run_jobs([Job(point, CONFIG, "f", "study", 0) for point in points], fake, 1, set(), interrupt)
    assert len(pids) == 1
    end = time.monotonic() + 30
    while Path(f"/proc/{pids[0]}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pids[0]}/cmdline").exists() or not Path(f"/proc/{pids[0]}/cmdline").read_bytes()
