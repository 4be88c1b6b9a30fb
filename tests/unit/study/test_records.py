from pathlib import Path

import pytest

from flows.study.points import Point
from flows.study.records import PointRecord, RecordStore, Session, SessionLog, missing_points
from tasks.engine.errors import ArtifactError


def point(seed: int) -> Point:
    return Point(kind="policy", setting="beta=1 gamma=0", seed=seed, overrides=(f"seed={seed}",))


def record(seed: int, **values: object) -> PointRecord:
    return PointRecord.model_validate({"point": point(seed), "fingerprint": f"f{seed}", "seconds": 1.5, **values})


def test_records_come_back(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    rows = [{"step": 1.0, "objective/kl": 0.125}]
    store.write(record(1, metrics={"policy/kl": 0.1}, history=rows))
    assert RecordStore(tmp_path).read("f1") == record(1, metrics={"policy/kl": 0.1}, history=rows)
    assert store.read("f2") is None
    assert [path.name for path in (tmp_path / "points").iterdir()] == ["f1.json"]


def test_failed_and_absent_points_are_missing_and_a_later_success_counts(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    points = [point(seed) for seed in (1, 2, 3)]
    prints = {item: f"f{item.seed}" for item in points}
    store.write(record(1))
    store.write(record(2, error="TrainingDiverged: loss"))
    assert missing_points(points, store.read_all(prints)) == points[1:]
    store.write(record(2))
    assert missing_points(points, store.read_all(prints)) == points[2:]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    (tmp_path / "points" / "f1.json").write_text('{"point": 3}')
    with pytest.raises(ArtifactError, match=r"f1\.json: damaged record .* remove the file"):
        store.read("f1")


def test_sessions_add_up(tmp_path: Path) -> None:
    first, second = (Session(seconds=1.0, fingerprints=[name], workers=2) for name in ("f1", "f2"))
    SessionLog(tmp_path / "new").add(first)
    SessionLog(tmp_path / "new").add(second)
    log = SessionLog(tmp_path / "new")
    assert log.read() == [first, second]
    assert log.of([record(2)]) == [second]
    assert log.of([record(1), record(2)]) == [first, second]
    assert log.of([record(3)]) == []
    (tmp_path / "new" / "sessions.json").write_text('[{"seconds": 1}]')
    with pytest.raises(ArtifactError, match=r"sessions\.json: damaged list of calls"):
        log.read()
