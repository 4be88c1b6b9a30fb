"""The work of a token, recorded and replayed: on a stand-in for CUDA graphs, which keeps to the memory of the recording."""

import logging
from collections import Counter

import pytest
import torch
from transformers import PreTrainedModel

from tasks.language import replaying
from tasks.language.decoding import PackedReader
from tasks.language.families import trunk_of
from tasks.language.generation import Sampled, sample
from tasks.language.replaying import ReplayedReader, reader_of
from tests.unit.families import PACKED, PADDED, build
from tests.unit.recorder import record
from tests.unit.tiny import EOS, PAD

PROMPTS = [[3, 4], [5, 6, 7, 8], [9], [3, 4], [10, 11, 12], [13, 4]]


@pytest.fixture(autouse=True)
def _short_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "_trusted", {})
    monkeypatch.setattr(replaying, "COLUMNS", 12)
    monkeypatch.setattr(replaying, "WORTH", 1)


def sampled(model: PreTrainedModel) -> Sampled:
    draws = torch.Generator().manual_seed(0)
    how = {"temperature": 1.0, "generator": draws, "eos_id": EOS, "pad_id": PAD, "batch_size": 6}
    return sample(model, PROMPTS, max_new_tokens=24, with_statistics=True, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", PACKED)
def test_replays_sample_what_steps_sample(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, count = build(family), Counter[str]()
    expected = sampled(model)

    def counting(step: replaying.Step) -> replaying.Step:
        count["recorded"] += 1
        again = record(step)

        def counted() -> torch.Tensor:
            count["replayed"] += 1
            return again()

        return counted

    monkeypatch.setitem(replaying.RECORDERS, "cpu", counting)
    found = sampled(model)
    assert found.responses == expected.responses and found.statistics and expected.statistics
    for mine, theirs in zip(found.statistics, expected.statistics, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    longest = max(map(len, found.responses))
    assert longest > 12
    # anew at column 12, and where rows were taken out
    assert count["recorded"] >= 3 and count["replayed"] + count["recorded"] >= longest - 1


def test_what_replays_wrongly_or_not_at_all_is_done_step_by_step(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = sampled(build("llama"))

    def stale(step: replaying.Step) -> replaying.Step:
        states = step() + 1.0
        return lambda: states

    def refusing(step: replaying.Step) -> replaying.Step:
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")

    for recorder, words in ((stale, "% off"), (refusing, "not permitted when stream is capturing")):
        monkeypatch.setattr(replaying, "_trusted", {})
        monkeypatch.setitem(replaying.RECORDERS, "cpu", recorder)
        caplog.clear()
        with caplog.at_level(logging.INFO, "plumbline"):
            assert sampled(build("llama")).responses == expected.responses
        (told,) = [record.getMessage() for record in caplog.records]
        assert told.startswith("sampling: ") and words in told and "\n" not in told


def test_nothing_is_recorded_for_a_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "WORTH", 100)
    expected = sampled(build("llama")).responses
    monkeypatch.setitem(replaying.RECORDERS, "cpu", None)  # type: ignore[arg-type]
    assert sampled(build("llama")).responses == expected


def test_only_packed_families_on_devices_that_record_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, padded = trunk_of(build("llama")), trunk_of(build(next(iter(PADDED))))
    assert type(reader_of(packed, [[3]], 2)) is PackedReader
    monkeypatch.setitem(replaying.RECORDERS, "cpu", record)
    assert isinstance(reader_of(packed, [[3]], 2), ReplayedReader)
    assert not isinstance(reader_of(padded, [[3]], 2), PackedReader)
