"""Cards for a stage: one, or one for each of its ranks, never one that another stage has."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tasks.engine.artifacts import ArtifactStore
from tasks.engine.errors import ConfigError, Interrupted
from tasks.engine.stage import gpu_slots
from tasks.engine.stop import StopSign


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"card-{device.index}")
    )
    return ArtifactStore(tmp_path)


def test_a_cpu_is_never_waited_for(store: ArtifactStore) -> None:
    with gpu_slots(store, "cpu", StopSign(store.root, ""), 3) as devices:
        assert devices == ["cpu"] * 3


def test_every_rank_has_a_card_of_its_own_and_another_stage_gets_what_is_left(store: ArtifactStore) -> None:
    sign = StopSign(store.root, "run")
    with gpu_slots(store, "cuda", sign, 2) as two:
        assert two == ["cuda:0", "cuda:1"]
        with gpu_slots(store, "cuda", sign) as one:
            assert one == ["cuda:2"]
        sign.ask()
        with pytest.raises(Interrupted, match="waited for a free GPU"), gpu_slots(store, "cuda", sign, 2):
            pass


def test_more_ranks_than_cards_are_refused(store: ArtifactStore) -> None:
    sign = StopSign(store.root, "")
    for device, cards in (("cuda", 3), ("cuda:1", 1)):
        with (
            pytest.raises(ConfigError, match=rf"runtime\.processes is 4 .* {cards} GPU here"),
            gpu_slots(store, device, sign, 4),
        ):
            pass
