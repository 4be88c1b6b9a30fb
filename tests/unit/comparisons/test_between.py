"""Agreement between kinds of labelers, counted by hand."""

import pytest

from tasks.comparisons.between import agreement_between
from tasks.records.records import Comparison
from tasks.results.win_rate import Resampling
from tests.unit import tiny_models as tiny

HOW = Resampling(0.95, 500, 1)


def ranked(who: str, *rankings: tuple[int, ...]) -> list[Comparison]:
    return [
        Comparison(prompt=prompt, completions=["x", "y", "z"], ranks=[*ranks], labeler_id=who)
        for prompt, ranks in zip(tiny.prompts(len(rankings)), rankings, strict=True)
    ]


def test_people_with_each_other_with_a_model_and_with_gold() -> None:
    people = [*ranked("ann", (1, 2, 3), (1, 2, 3)), *ranked("bob", (1, 3, 2), (3, 2, 1))]
    model = ranked("chat:m", (1, 2, 3), (1, 1, 1))
    found = agreement_between({"people": people, "chat": model, "gold": ranked("gold", (3, 2, 1), (1, 2, 3))}, HOW)
    assert found["agreement/people-people"] == pytest.approx(2 / 6)
    assert found["agreement/people-chat"] == pytest.approx((3 + 2) / 6)
    assert found["agreement/people-gold"] == pytest.approx((0 + 3 + 1 + 0) / 12)
    assert found["agreement/chat-gold"] == 0.0
    assert (found["agreement/chat-gold_pairs"], found["agreement/people-gold_pairs"]) == (3, 12)
    assert {name for name in found if "_" not in name} == {
        f"agreement/{pair}" for pair in ("people-people", "people-chat", "people-gold", "chat-gold")
    }
    assert found["agreement/people-people_low"] == 0.0 and found["agreement/people-people_high"] == pytest.approx(2 / 3)


def test_the_interval_narrows_with_prompts_and_covers_the_truth() -> None:
    right, wrong = (1, 2, 3), (3, 2, 1)

    def width(prompts: int) -> float:
        model = ranked("m", *[right if index % 4 else wrong for index in range(prompts)])
        found = agreement_between({"people": ranked("ann", *[right] * prompts), "chat": model}, HOW)
        assert found["agreement/people-chat_low"] < 0.75 < found["agreement/people-chat_high"]
        return found["agreement/people-chat_high"] - found["agreement/people-chat_low"]

    # Half-width of a share at 95 %: 1.96 sqrt(0.75 x 0.25 / n).
    assert width(16) == pytest.approx(2 * 0.212, rel=0.2)
    assert width(256) == pytest.approx(2 * 0.053, rel=0.2)


def test_kinds_without_a_common_item_have_no_agreement() -> None:
    apart = [one.model_copy(update={"completions": ["u", "v", "w"]}) for one in ranked("m", (1, 2, 3))]
    assert agreement_between({"people": ranked("ann", (1, 2, 3)), "chat": apart}, HOW) == {}
