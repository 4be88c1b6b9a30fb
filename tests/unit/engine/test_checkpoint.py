import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tasks.engine import checkpoint
from tasks.engine.checkpoint import Inspection, latest_checkpoint, latest_step, resumable, save_checkpoint
from tasks.engine.config import AdamConfig
from tasks.engine.errors import ArtifactError, Interrupted, TrainingDiverged
from tasks.language.optimization import make_adamw

ADAM = AdamConfig(
    learning_rate=1e-2,
    beta1=0.9,
    beta2=0.95,
    epsilon=1e-8,
    epsilon_placement="after_correction",
    weight_decay=0.0,
    max_grad_norm=1.0,
)


class ToyLearner:
    """A regression with everything a real learner has: weights, optimizer, a torch and a Python generator."""

    def __init__(self, total_steps: int = 10, breaks_at: int | None = None) -> None:
        self.total_steps, self.completed_steps, self.breaks_at = total_steps, 0, breaks_at
        self.model = nn.Linear(3, 1)
        with torch.no_grad():
            self.model.weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]))
            self.model.bias.zero_()
        self.optimizer = make_adamw(self.model.parameters(), ADAM)
        self.generator = torch.Generator().manual_seed(3)
        self.order = random.Random(4)

    def step(self) -> dict[str, float]:
        x = torch.randn(4, 3, generator=self.generator) * self.order.random()
        loss = (self.model(x) - 1.0).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.completed_steps += 1
        return {"train/loss": float("nan") if self.completed_steps == self.breaks_at else loss.item()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.order.getstate(),
            "completed_steps": self.completed_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.order.setstate(state["order"])
        self.completed_steps = state["completed_steps"]


def files(folder: Path) -> list[str]:
    """Names of what lies there, the digests apart."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".sha256")


@pytest.mark.parametrize("stopped_after", [0, 1, 3, 4, 7, 9, 10])
def test_a_stopped_run_continues_bit_equal(tmp_path: Path, stopped_after: int) -> None:
    whole = ToyLearner()
    expected = dict(resumable(whole, tmp_path / "whole", 3))
    seen = dict(islice(resumable(ToyLearner(), tmp_path / "parts", 3), stopped_after))
    second = ToyLearner()
    rest = dict(resumable(second, tmp_path / "parts", 3))
    assert seen | rest == expected
    assert torch.equal(second.model.weight, whole.model.weight)
    # the checkpoint's own step comes first, for consumers that keep metrics in memory; none before it is repeated
    assert min(rest) == max((max(stopped_after - 1, 0) // 3) * 3, 1)


def test_a_finished_run_takes_no_step_and_gives_its_last_metrics(tmp_path: Path) -> None:
    steps = list(resumable(ToyLearner(), tmp_path, 4))
    again = ToyLearner()
    again.step = None  # type: ignore[method-assign,assignment]
    assert list(resumable(again, tmp_path, 4)) == steps[-1:] and again.completed_steps == 10


@pytest.mark.parametrize("stopped_after", [1, 2, 3, 7, 9])
def test_told_to_stop_it_saves_the_step_it_has_just_made(tmp_path: Path, stopped_after: int) -> None:
    expected = dict(resumable(ToyLearner(), tmp_path / "whole", 4))
    seen: dict[int, dict[str, float]] = {}
    with pytest.raises(Interrupted, match=f"stopped at step {stopped_after} of 10"):
        for step, metrics in resumable(ToyLearner(), tmp_path / "parts", 4, lambda: len(seen) == stopped_after):
            seen[step] = metrics
    assert latest_step(tmp_path / "parts") == stopped_after == max(seen)
    rest = dict(resumable(ToyLearner(), tmp_path / "parts", 4))
    assert seen | rest == expected


def test_told_to_stop_in_the_last_step_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    learner = ToyLearner()
    assert len(list(resumable(learner, tmp_path, 4, lambda: learner.completed_steps == 10))) == 10
    assert latest_step(tmp_path) == 10


def test_the_last_two_stay(tmp_path: Path) -> None:
    list(resumable(ToyLearner(), tmp_path, 2))
    assert files(tmp_path) == ["step-00000008.pt", "step-00000010.pt"]
    assert sorted(path.name for path in tmp_path.glob("*.sha256")) == [f"{name}.sha256" for name in files(tmp_path)]


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    assert latest_checkpoint(tmp_path) is None


def test_a_metric_that_is_not_finite_stops_the_run_and_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="step 4: train/loss is nan"):
        list(resumable(ToyLearner(breaks_at=4), tmp_path, 1))
    assert latest_checkpoint(tmp_path)[0] == 3


class ShowingLearner(ToyLearner):
    def inspection(self) -> Inspection:
        rows = [{"prompt": "how?", "score": float("nan"), "step": self.completed_steps}, {"prompt": "ü", "score": 1.5}]
        return Inspection(rows, {"logprobs": torch.tensor([[float("nan"), -1.0], [-2.0, -3.0]])})


def test_what_a_diverged_step_was_made_of_stays_beside_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged) as raised:
        list(resumable(ShowingLearner(breaks_at=6), tmp_path, 2))
    kept = ["diverged-00000006.jsonl", "diverged-00000006.safetensors", "step-00000002.pt", "step-00000004.pt"]
    assert files(tmp_path) == kept
    message = str(raised.value)
    for part in ("step 6: train/loss is nan", str(tmp_path / kept[0]), kept[1], "step-00000004.pt"):
        assert part in message
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / kept[0]).read_text().splitlines()]
    assert rows == [{"prompt": "how?", "score": "nan", "step": 6}, {"prompt": "ü", "score": 1.5}]
    numbers = load_file(tmp_path / kept[1])["logprobs"]
    assert numbers.isnan().tolist() == [[True, False], [False, False]] and numbers[1].tolist() == [-2.0, -3.0]


def test_a_step_that_diverges_before_any_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="there is no checkpoint before it"):
        list(resumable(ToyLearner(breaks_at=1), tmp_path, 1))


def test_killed_between_write_and_rename(tmp_path: Path) -> None:
    """A process is killed with the new file written and not yet renamed: the checkpoint before it is the latest."""
    program = f"""
import os, signal
from pathlib import Path
from tasks.engine import checkpoint
folder = Path({str(tmp_path)!r})
checkpoint.save_checkpoint(folder, 1, {{"completed_steps": 1}})
checkpoint.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_checkpoint(folder, 2, {{"completed_steps": 2}})
"""
    root = Path(checkpoint.__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert ended.returncode == -signal.SIGKILL
    assert [name[:8] for name in files(tmp_path)] == [".unfinis", "step-000"]
    assert latest_checkpoint(tmp_path) == (1, {"completed_steps": 1})
    save_checkpoint(tmp_path, 2, {"completed_steps": 2})
    assert files(tmp_path) == ["step-00000001.pt", "step-00000002.pt"]  # what the killed process left is gone


def test_a_write_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, {"completed_steps": 1})

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full_disk)
    with pytest.raises(ArtifactError, match=r"step-00000002\.pt cannot be written: the disk is full.*No space left"):
        save_checkpoint(tmp_path, 2, {"completed_steps": 2})
    assert files(tmp_path) == ["step-00000001.pt"]


def test_the_digest_beside_a_checkpoint_is_what_sha256sum_reads(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"completed_steps": 1})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / "step-00000001.pt.sha256").read_text() == f"{digest}  step-00000001.pt\n"


def test_a_hundred_flipped_bits_are_all_found_and_the_checkpoint_before_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(7)
    before = save_checkpoint(tmp_path, 1, {"weights": torch.ones(1000)})
    path = save_checkpoint(tmp_path, 2, {"weights": torch.ones(1000)})
    whole, digest = path.read_bytes(), path.with_name(path.name + ".sha256").read_bytes()
    for number in range(1, 101):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        path.with_name(path.name + ".sha256").write_bytes(digest)
        found = latest_checkpoint(tmp_path)
        assert found is not None and found[0] == 1 and torch.equal(found[1]["weights"], torch.ones(1000))
        assert len(caplog.records) == number
        assert files(tmp_path) == ["damaged-step-00000002.pt", before.name]
    message = caplog.records[-1].getMessage()
    assert message.startswith(f"{path}: its SHA-256 is ") and "\n" not in message
    assert message.endswith("set aside as damaged-step-00000002.pt, and training goes on from the checkpoint of step 1")


@pytest.mark.parametrize("damage", ["cut off", "empty", "no digest", "garbled digest", "from elsewhere"])
def test_what_is_not_what_was_written_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = save_checkpoint(tmp_path, 2, {"weights": torch.zeros(100)})
    beside = path.with_name(path.name + ".sha256")
    if damage == "no digest":
        beside.unlink()
    elif damage == "garbled digest":
        beside.write_bytes(b"\xff\x00")
    else:
        path.write_bytes({"cut off": path.read_bytes()[:200], "empty": b"", "from elsewhere": b"PK" * 500}[damage])
    assert latest_checkpoint(tmp_path) is None
    [record] = caplog.records
    assert record.getMessage().endswith("and training goes on from the start")
    assert files(tmp_path) == ["damaged-step-00000002.pt"] and latest_step(tmp_path) is None


@pytest.mark.parametrize("damaged", [["step-00000009.pt"], ["step-00000009.pt", "step-00000006.pt"]])
def test_a_run_with_damaged_checkpoints_ends_bit_equal(tmp_path: Path, damaged: list[str]) -> None:
    whole = ToyLearner()
    expected = dict(resumable(whole, tmp_path / "whole", 3))
    list(islice(resumable(ToyLearner(), tmp_path / "parts", 3), 10))
    for name in damaged:
        data = bytearray((tmp_path / "parts" / name).read_bytes())
        data[len(data) // 2] ^= 4
        (tmp_path / "parts" / name).write_bytes(data)
    again = ToyLearner()
    rest = dict(resumable(again, tmp_path / "parts", 3))
    assert torch.equal(again.model.weight, whole.model.weight)
    assert min(rest) == (6 if len(damaged) == 1 else 1)
    assert all(expected[step] == metrics for step, metrics in rest.items())


def test_slow_steps_are_saved_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    for step, _ in resumable(
        ToyLearner(),
        tmp_path,
        1000,
        seconds=100,
        before_saving=lambda: order.append(("flushed", latest_step(tmp_path))),
    ):
        order.append((step, latest_step(tmp_path)))
        clock[0] += 60.0
    saved = [found for name, found in order if name == 10]
    assert saved == [8]  # every second step of a minute; the newest before the last
    assert [found for name, found in order if name == "flushed"] == [None, 2, 4, 6, 8]


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo harm",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step-00000001.pt"
    torch.save({"x": Harmful()}, path)
    path.with_name(path.name + ".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    assert latest_checkpoint(tmp_path) is None
    assert "harm\n" not in capfd.readouterr().out
    assert files(tmp_path) == ["damaged-step-00000001.pt"]
