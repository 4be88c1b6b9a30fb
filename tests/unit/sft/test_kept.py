"""Epochs that are kept beside the checkpoints: whole or absent, and never damaged without a word."""

import random
from functools import partial
from pathlib import Path

import pytest

from tasks.language.models import save_policy
from tasks.sft.kept import SUMS, begin_again_if_damaged, keep
from tests.unit import tiny_models as tiny


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    for epoch in (1, 2):
        keep(tmp_path / "epochs" / str(epoch), partial(save_policy, tiny.policy(seed=epoch), tiny.tokenizer()))
    for name in ("step-00000010.pt", "step-00000010.pt.sha256", "mlflow_run"):
        (tmp_path / name).write_text("x")
    return tmp_path


def test_what_is_as_it_was_written_stays(checkpoints: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = sorted(path.name for path in checkpoints.rglob("*"))
    assert {"model.safetensors", SUMS} <= set(before)
    begin_again_if_damaged(checkpoints / "epochs")
    begin_again_if_damaged(checkpoints / "nothing")
    assert sorted(path.name for path in checkpoints.rglob("*")) == before and not caplog.records


def test_any_flipped_bit_begins_training_again(checkpoints: Path, caplog: pytest.LogCaptureFixture) -> None:
    draws, epochs = random.Random(3), checkpoints / "epochs"
    file = draws.choice([path for path in sorted((epochs / "2").iterdir()) if path.name != SUMS])
    content = bytearray(file.read_bytes())
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    file.write_bytes(content)
    begin_again_if_damaged(epochs)
    assert [path.name for path in checkpoints.iterdir()] == ["mlflow_run"]
    assert f"{epochs / '2'}: file {file.name} has digest" in caplog.text and "training begins again" in caplog.text


@pytest.mark.parametrize("damage", ["missing", "stranger", "no sums", "cut sums"])
def test_other_damage(checkpoints: Path, damage: str) -> None:
    folder = checkpoints / "epochs" / "1"
    if damage == "missing":
        (folder / "model.safetensors").unlink()
    elif damage == "stranger":
        (folder / "adapter.safetensors").write_text("x")
    elif damage == "no sums":
        (folder / SUMS).unlink()
    else:
        (folder / SUMS).write_text('{"model.saf')
    begin_again_if_damaged(checkpoints / "epochs")
    assert not list(checkpoints.glob("step-*")) and not (checkpoints / "epochs").exists()


def test_a_crash_while_an_epoch_is_saved_leaves_the_one_before_it_whole(checkpoints: Path) -> None:
    epochs = checkpoints / "epochs"
    kept = (epochs / "2" / SUMS).read_bytes()

    def killed(folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(epochs / "2", killed)
    assert (epochs / "2" / SUMS).read_bytes() == kept
    begin_again_if_damaged(epochs)  # what is left of it is not looked at
    keep(epochs / "2", partial(save_policy, tiny.policy(seed=2), tiny.tokenizer()))
    assert (epochs / "2" / SUMS).read_bytes() == kept and not (epochs / ".2").exists()
