"""Two reward models that share no prompt."""

from tasks.records.comparison_sets import take_part
from tasks.records.records import Comparison, Prompt


def comparison(text: str, labeler: str = "ann") -> Comparison:
    return Comparison(
        prompt=Prompt(prompt_id=f"{text}/{labeler}", owner_id="o", text=text),
        completions=["a", "b"],
        ranks=[1, 2],
        labeler_id=labeler,
        source_policy=["sft", "sft"],
        finished=[True, True],
    )


COMPARISONS = [comparison(f"prompt {index}", labeler) for index in range(200) for labeler in ("ann", "bob")]


def test_the_halves_are_disjoint_by_prompt_and_lose_nothing() -> None:
    first, second = take_part(COMPARISONS, "first_half"), take_part(COMPARISONS, "second_half")
    assert not {item.prompt.text for item in first} & {item.prompt.text for item in second}
    assert sorted(map(repr, first + second)) == sorted(map(repr, COMPARISONS))
    assert 140 < len(first) < 260  # 200 expected, standard deviation of 100 pairs of rankings about 14


def test_all_keeps_every_comparison_in_order() -> None:
    assert take_part(COMPARISONS, "all") == COMPARISONS


def test_a_prompt_stays_in_its_half_whatever_else_is_there() -> None:
    assert take_part(COMPARISONS[::3], "first_half") == [
        item for item in COMPARISONS[::3] if item in take_part(COMPARISONS, "first_half")
    ]
