import pytest

from tasks.data_prep.few_shot import Shot, expand_few_shot

SHOTS = [Shot("capital of France?", "Paris"), Shot("capital of Peru?", "Lima"), Shot("capital of Chad?", "N'Djamena")]


@pytest.mark.point(6)
def test_k_shots_give_k_examples_each_with_the_others_and_never_its_own_answer() -> None:
    examples = expand_few_shot("Name the capital.", SHOTS)
    assert [example.response for example in examples] == [shot.response for shot in SHOTS]
    for example, own in zip(examples, SHOTS, strict=True):
        assert example.query.startswith("Name the capital.\n\n")
        assert example.query.endswith(f"{own.query}\n")
        assert own.response not in example.query
        others = [shot for shot in SHOTS if shot != own]
        assert all(f"{other.query}\n{other.response}" in example.query for other in others)


def test_layout() -> None:
    assert expand_few_shot("Do.", SHOTS[:2])[0].query == "Do.\n\ncapital of Peru?\nLima\n\ncapital of France?\n"


def test_every_other_shot_stands_in_order_before_the_one_that_is_asked() -> None:
    five = [Shot(f"q{number}", f"a{number}") for number in range(5)]
    context = {0: "q0\na0\n\n", 1: "q1\na1\n\n", 2: "q2\na2\n\n", 3: "q3\na3\n\n", 4: "q4\na4\n\n"}
    expected = [
        ("Do.\n\n" + "".join(text for place, text in context.items() if place != asked) + f"q{asked}\n", f"a{asked}")
        for asked in range(5)
    ]
    assert expand_few_shot("Do.", five) == expected


def test_equal_shots_are_told_apart_by_their_place() -> None:
    twice = [Shot("q", "a"), Shot("q", "a")]
    assert [example.query for example in expand_few_shot("Do.", twice)] == ["Do.\n\nq\na\n\nq\n"] * 2
