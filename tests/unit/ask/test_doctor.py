"""What the doctor finds: every fault that is planted, and nothing in a sound run."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from flows.ask.doctor.patient import Patient
from flows.ask.doctor.table import CHECKS, examine
from flows.config import RLHFConfig, composed, parse
from tasks.engine.errors import PlumblineError
from tests.unit.ask import faulty
from tests.unit.ask.faults import FAULTS, Fault


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sound")
    return faulty.sound_model(root / "model"), faulty.sound_data(root / "data")


@pytest.fixture
def scene(
    sound: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[faulty.Scene, Path]]:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr("flows.ask.doctor.machine.available_cores", lambda: 2)
    yield faulty.scene(*sound, tmp_path, monkeypatch), tmp_path / "store"


@cache
def recipe() -> DictConfig:
    return composed(list(faulty.SOUND))


def configured(at: faulty.Scene, root: Path) -> RLHFConfig:
    """As from a command line; conf/ is read once, which takes longer than all checks."""
    overrides = faulty.command_line(at, root)[len(faulty.SOUND) :]
    return parse(OmegaConf.merge(recipe(), OmegaConf.from_dotlist(overrides)))  # type: ignore[arg-type]


def found_in(at: faulty.Scene, root: Path) -> list[tuple[str, str]]:
    """Severity and sentence of everything; a configuration that is refused is an error."""
    try:
        examined = examine(Patient(configured(at, root)))
    except PlumblineError as error:
        return [("error", str(error))]
    return [(finding.severity, str(finding)) for findings in examined.values() for finding in findings]


def test_a_sound_run_has_nothing_to_report(scene: tuple[faulty.Scene, Path]) -> None:
    assert found_in(*scene) == []


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_planted_fault_is_found(fault: Fault, scene: tuple[faulty.Scene, Path]) -> None:
    fault.plant(scene[0])
    found = found_in(*scene)
    matching = [item for item in found if all(words in item[1] for words in fault.words)]
    assert matching, "\n".join(map(str, found)) or "nothing was found"
    assert fault.severity in {severity for severity, _ in matching}


def test_the_list_is_as_long_as_it_should_be() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    assert sum(bool(fault.reported) for fault in FAULTS) >= 15
    assert all(CHECKS.values())
