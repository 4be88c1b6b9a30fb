"""What the doctor finds: every fault that is planted, and nothing in a sound run."""

import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from flows.ask.doctor.patient import Patient
from flows.ask.doctor.sample import ROWS
from flows.ask.doctor.table import CHECKS, examine
from flows.ask.preflight import check, check_ahead
from flows.config import RLHFConfig, composed, parse
from flows.doctor import doctor
from tasks.engine.errors import PlumblineError
from tests.unit.ask import faulty
from tests.unit.ask.faults import FAULTS, Fault
from tests.unit.ask.faulty import VERBS


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


def test_the_page_and_the_exit_status(scene: tuple[faulty.Scene, Path], capsys: pytest.CaptureFixture[str]) -> None:
    at, root = scene
    assert doctor(faulty.command_line(at, root)) == 0
    shown = capsys.readouterr().out
    cells = [line.replace("│", " ").split() for line in shown.splitlines()]
    assert any(line[:3] == ["demonstrations", "60", "60"] for line in cells)
    assert "machine fine" in shown and " 0 errors, 0 warnings" in shown
    assert re.search(r"Labels: (\d\d) rankings, \1 ordered pairs, 0 ties; the longer response wins (4|5)\d%", shown)
    (at.model / "model.safetensors").unlink()
    assert doctor([*faulty.command_line(at, root), "ppo.beta=0"]) == 1
    shown = capsys.readouterr().out
    assert "model 1 wrong" in shown and "batches 1 doubtful" in shown and " 1 error, 1 warning\n" in shown
    assert shown.index("error model.name_or_path") < shown.index("warning ppo.beta")


def test_a_run_is_refused_with_everything_that_is_wrong_and_warned_of_the_rest(
    scene: tuple[faulty.Scene, Path], caplog: pytest.LogCaptureFixture
) -> None:
    at, root = scene
    logging.getLogger("plumbline").propagate = True
    at.overrides.append("ppo.beta=0")
    check(configured(at, root))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["ppo.beta"]
    (at.model / "model.safetensors").unlink()
    at.overrides.append("runtime.device=cuda:99")
    with pytest.raises(PlumblineError, match=r"cuda:99 asked for(.|\n)*found no weights"):
        check(configured(at, root))


def test_a_run_that_the_command_line_has_checked_is_not_checked_again_but_the_next_one_is(
    scene: tuple[faulty.Scene, Path],
) -> None:
    at, root = scene
    config = configured(at, root)
    check_ahead(config)
    (at.model / "model.safetensors").unlink()
    check(config)
    with pytest.raises(PlumblineError, match="found no weights"):
        check(config)


def test_several_labelers_of_one_item_are_named_and_neither_repeat_nor_contradict(
    scene: tuple[faulty.Scene, Path],
) -> None:
    """Fifty pairs that two rank, who differ on every fourth; and the same rows without names."""
    at, root = scene

    def ranked(name: dict[str, str], other: dict[str, str]) -> list[dict[str, object]]:
        first = [{**row, **name} for row in faulty.pairs(range(60, 110))]
        turned = [
            {**row, **other} | ({"chosen": row["rejected"], "rejected": row["chosen"]} if place % 4 == 0 else {})
            for place, row in enumerate(faulty.pairs(range(60, 110)))
        ]
        return [*first, *turned]

    faulty.write(at.data / "comparisons.jsonl", ranked({"labeler": "kim"}, {"annotator": "lee"}))
    found = found_in(at, root)
    assert {severity for severity, _ in found} == {"notice"}
    several, apart = (sentence for _, sentence in found if "several labelers" in sentence)
    assert re.search(r"comparisons: (\d\d) prompts were ranked by several labelers: \d+ rankings of the same", several)
    assert re.search(r"1\d of \d\d pairs that several labelers ranked, ranked both ways", apart)
    faulty.write(at.data / "comparisons.jsonl", ranked({}, {}))
    found = found_in(at, root)
    assert any("left out by the rule duplicate: they repeat another row" in sentence for _, sentence in found)
    assert any("or name the labeler of each row" in sentence for _, sentence in found)
    assert any(severity == "warning" and "pairs ranked both ways" in sentence for severity, sentence in found)
    assert not any("several labelers" in sentence for _, sentence in found)


def test_rankings_that_a_run_does_not_train_on_are_not_judged(
    scene: tuple[faulty.Scene, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    at, root = scene
    faulty.write(at.data / "comparisons.jsonl", faulty.pairs(range(61, 151, 2)))
    assert any("the longer response winning" in sentence for _, sentence in found_in(at, root))
    at.overrides.extend(["comparisons.source=sample_and_label", "comparisons.labelers=[people]"])
    assert found_in(at, root) == []
    assert doctor(faulty.command_line(at, root)) == 0
    assert "Labels: none to read" in capsys.readouterr().out


def test_prompts_are_compared_with_all_their_turns(scene: tuple[faulty.Scene, Path]) -> None:
    at, root = scene

    def talks(row: dict[str, object]) -> dict[str, object]:
        turns = [(row["prompt"], "user"), ("yes", "assistant"), ("why ?", "user")]
        return {**row, "prompt": [{"role": role, "content": content} for content, role in turns]}

    faulty.write(at.data / "comparisons.jsonl", map(talks, faulty.pairs()))
    assert not any("prompts of one kind" in sentence for _, sentence in found_in(at, root))


def test_long_files_are_read_from_their_beginning(scene: tuple[faulty.Scene, Path]) -> None:
    at, root = scene
    faulty.write(at.data / "rl_prompts.jsonl", [{"prompt": f"{VERBS[i % 10]} case {i} ?"} for i in range(ROWS + 5)])
    sample = Patient(configured(at, root)).sample
    assert sample is not None and sample.files["rl_prompts.jsonl"] == ROWS and not sample.whole
