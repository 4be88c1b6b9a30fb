"""The stages of collecting comparisons as the pipeline runs them, without tracking: what waits, what is found, what adds up."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.states import State

from tasks.comparisons import collect_comparisons, sample_responses
from tasks.comparisons.config import SamplingConfig
from tasks.comparisons.job import ComparisonsJob, SamplingJob
from tasks.engine.artifacts import ArtifactRef, ArtifactStore
from tasks.engine.caching import AWAITING_LABELS, CACHED, as_task
from tasks.engine.context import StageContext, StageName
from tasks.engine.errors import DataError
from tasks.language.models import save_policy
from tasks.records.comparison_sets import read_comparisons
from tasks.records.data import PreparedRecords, write_prepared_data
from tasks.records.labels import Label, append_label, batch_folder, batches, read_batch
from tasks.records.records import Comparison
from tests.unit import tiny_models as tiny
from tests.unit.comparisons.labelers.asked import config

SMALL: dict[str, Any] = {"max_prompts": 4, "max_valid_prompts": 2, "agreement_prompts": 0, "response_tokens": 6}
PLANTED = {"name": "tests.unit.comparisons.labelers.planted:by_length"}


class House:
    """A store with tiny data and a tiny policy in it."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, ArtifactStore(root / "artifacts")
        self.context = StageContext(
            store=str(self.store.root), tracking_uri="", experiment_id="", parent_run_id="", runtime=tiny.runtime()
        )
        prompts = tiny.prompts(9)
        records = PreparedRecords(rl_prompts={"train": prompts[:6], "valid": prompts[6:]})
        self.data = self._put("data_prep", lambda folder: write_prepared_data(folder, records, tiny.tokenizer()))
        self.policy = self._put("sft", lambda folder: save_policy(tiny.policy(), tiny.tokenizer(), folder / "policy"))

    def _put(self, stage: str, write: Any) -> ArtifactRef:
        with self.store.publish(stage, "f" * 20, {}, {}) as draft:
            write(draft.folder)
        assert draft.ref is not None
        return draft.ref

    def sample(self, number: int = 1, **changes: Any) -> ArtifactRef:
        knobs = config(**(SMALL | {"labelers": ["people"], "prompts_from": "rl_prompts"} | changes))
        job = SamplingJob(sampling=knobs.part(SamplingConfig), round=number, policy="sft")
        made = as_task(sample_responses).fn(StageName(group="candidates"), job, self.context, self._inputs())
        return made.data if isinstance(made, State) else made

    def collect(self, number: int = 1, labelers: tuple[str, ...] = ("people",), **given: Any) -> Any:
        inputs = {name: given.pop(name) for name in ("candidates", "earlier") if name in given}
        knobs = config(**(SMALL | {"labelers": [*labelers], "prompts_from": "rl_prompts", "function": PLANTED} | given))
        job = ComparisonsJob(comparisons=knobs, round=number, policy="sft")
        source = self._inputs() if "candidates" not in inputs else {"data": self.data}
        return as_task(collect_comparisons).fn(StageName(group="comparisons"), job, self.context, source | inputs)

    def _inputs(self) -> dict[str, ArtifactRef]:
        return {"data": self.data, "policy": self.policy}

    def train(self, ref: ArtifactRef) -> list[Comparison]:
        return read_comparisons(self.store.open(ref))["train"]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def answer(house: House, who: str, *, first_is_best: bool) -> None:
    batch = read_batch(batch_folder(house.root, *batches(house.root)))
    for item in batch.items.values():
        count = len(item.responses)
        ranks = [*range(1, count + 1)] if first_is_best else [*range(count, 0, -1)]
        quality, flags = [3] * count, [["opinion"]] + [[]] * (count - 1)
        time = datetime(2026, 1, 1, tzinfo=UTC)
        given = {"ranks": ranks, "quality": quality, "flags": flags, "skipped": None, "seconds": 1.0, "time": time}
        append_label(batch, Label(item_id=item.item_id, labeler=who, **given))


def test_people_are_awaited_in_a_named_state_and_new_labels_make_new_comparisons(house: House) -> None:
    drawn = house.sample()
    waiting = house.collect(candidates=drawn)
    assert isinstance(waiting, State) and waiting.is_failed() and waiting.name == AWAITING_LABELS
    assert str(waiting.message).startswith("6 of 6 labels are missing in batch comparisons-")
    assert house.collect(candidates=drawn).name == AWAITING_LABELS  # asked again, it is the same batch
    answer(house, "ann", first_is_best=True)
    made = house.collect(candidates=drawn)
    assert [(one.labeler_id, one.ranks[:2], one.flags[0], one.seconds) for one in house.train(made)] == [
        ("ann", [1, 2], ["opinion"], 1.0)
    ] * 4
    assert house.collect(candidates=drawn).name == CACHED
    answer(house, "bob", first_is_best=False)
    more = house.collect(candidates=drawn, shared_share=0.1)
    assert isinstance(more, ArtifactRef) and more.digest != made.digest
    assert {one.labeler_id for one in house.train(more)} == {"ann", "bob"}


def test_two_kinds_share_the_prompts_and_one_batch_asks_only_what_is_for_people(house: House) -> None:
    drawn = house.sample()
    asked = {"labelers": ("people", "function"), "shared_share": 0.3, "candidates": drawn}
    assert house.collect(**asked).name == AWAITING_LABELS
    batch = read_batch(batch_folder(house.root, *batches(house.root)))
    assert sum(item.shared for item in batch.items.values()) == 2 and len(batch.items) < 6
    answer(house, "ann", first_is_best=True)
    ref = house.collect(**asked)
    manifest = house.store.manifest(ref.stage, ref.fingerprint)
    assert manifest is not None
    agreement = {name for name in manifest.metrics if name.startswith("agreement/")}
    assert agreement == {f"agreement/people-function{end}" for end in ("", "_low", "_high", "_pairs")}
    assert {one.labeler_id.partition(":")[0] for one in house.train(ref)} == {"ann", "function"}


def test_a_later_round_has_other_prompts_and_all_rankings_so_far(house: House) -> None:
    first = house.collect(labelers=("function",), candidates=house.sample())
    second = house.collect(2, ("function",), candidates=house.sample(2), earlier=first)
    old, new = house.train(first), house.train(second)
    names = [one.prompt.prompt_id for one in new]
    assert names == ["p0", "p1", "p2", "p3", "p4", "p5", "p0", "p1"] and new[:4] == old
    repeated = new[6]
    assert repeated.prompt == old[0].prompt and repeated.completions != old[0].completions
    assert house.sample(2).digest != house.sample().digest


def test_a_labeler_that_orders_nothing_and_prompts_that_are_not_there_are_refused(house: House) -> None:
    constant = {"name": PLANTED["name"].replace("by_length", "constant")}
    with pytest.raises(
        DataError, match="comparisons: training comparisons: none of the 4 rankings orders two different"
    ):
        house.collect(labelers=("function",), candidates=house.sample(), function=constant)
    with pytest.raises(DataError, match=r"prompts_from: found no comparison_prompts in the train split"):
        house.sample(prompts_from="comparison_prompts")
