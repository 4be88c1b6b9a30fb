"""What the embedded world tells of a policy beside gold: whether it asks back, and what each group of labelers gets."""

from collections.abc import Sequence

import pytest

from tasks.compare.compare import compare_sheets
from tasks.measure.world_figures import asking_figures, asks_back, group_figures
from tasks.records.records import Prompt
from tasks.results.sheet import Response
from tasks.sandbox.gold import gold_score
from tasks.sandbox.groups import TASTES, asked_by_groups, group_of
from tasks.sandbox.prompts import PRONOUN_IS_CLEAR
from tasks.sandbox.prompts import prompts as sandbox_prompts
from tests.unit.measure.test_policy_sheet import CONFIG, WORLD, Data, measure


def said(text: str) -> Response:
    return Response(text=text, finished=True, tokens=1, scores={})


def nobody(asked: Sequence[Prompt]) -> list[Response]:
    raise AssertionError("nothing is sampled again")


def test_a_question_back_is_one_about_a_pronoun_and_nothing_else() -> None:
    assert asks_back("who is she ?") and asks_back("sure , who is he ?")
    assert not asks_back("who is ann ?") and not asks_back("ann lives in ashby .") and not asks_back("")


def test_asking_is_counted_where_it_is_needed_and_where_it_is_not() -> None:
    asked = sandbox_prompts(WORLD, 200, 5, 0.4, ambiguous_share=0.5)
    ambiguous = [prompt.metadata["task"] == "ambiguous" for prompt in asked]
    clear = [bool(prompt.metadata.get(PRONOUN_IS_CLEAR)) for prompt in asked]
    # Greedy: always where it is needed, and in the first of the other two; sampled: never.
    first = clear.index(True)
    greedy = [said("who is he ?" if needed or place == first else "a .") for place, needed in enumerate(ambiguous)]
    found = asking_figures(asked, {"greedy": greedy, "sampled": [said("a .")] * 200})
    assert [(figure.measure, len(figure.values), sum(figure.values)) for figure in found] == [
        ("asks when ambiguous", sum(ambiguous), sum(ambiguous)),
        ("asks when not", sum(clear), 1),
    ]
    assert [figure.metric for figure in found] == ["asks/{policy}/ambiguous", "asks/{policy}/clear"]
    plain = sandbox_prompts(WORLD, 20, 5, 0.4)
    assert asking_figures(plain, {"greedy": [said("who is he ?")] * 20}) == []


def test_each_group_judges_its_own_prompts_under_its_own_and_under_the_other_name() -> None:
    plain = sandbox_prompts(WORLD, 10, 5, 0.4)
    named, texts = asked_by_groups(plain, "named"), []

    def answer(asked: Sequence[Prompt]) -> list[Response]:
        texts.extend(prompt.text for prompt in asked)
        return [said("i am not sure .") for _ in asked]

    polite = "sure , i am not sure ."
    found = {figure.metric: figure for figure in group_figures(WORLD, named, {"sampled": [said(polite)] * 10}, answer)}
    assert list(found) == [f"group/{{policy}}/{group}{end}" for group in TASTES for end in ("", "_as_other")]
    assert texts == [
        *(f"sailor : {prompt.text}" for prompt in plain[::2]),
        *(f"teacher : {prompt.text}" for prompt in plain[1::2]),
    ]
    for place, (group, points) in enumerate(TASTES.items()):
        own = [gold_score(WORLD, prompt, polite, True).total + points for prompt in plain[place::2]]
        other = [gold_score(WORLD, prompt, "i am not sure .", True).total for prompt in plain[place::2]]
        assert found[f"group/{{policy}}/{group}"].values == pytest.approx(own)
        assert found[f"group/{{policy}}/{group}_as_other"].values == pytest.approx(other)
        assert found[f"group/{{policy}}/{group}"].unit == "points"


def test_without_a_name_only_the_groups_own_figure_is_left_and_without_groups_none() -> None:
    plain = sandbox_prompts(WORLD, 10, 5, 0.4)
    sets = {"sampled": [said("a .")] * 10}
    unnamed = group_figures(WORLD, asked_by_groups(plain, "unnamed"), sets, nobody)
    assert [(figure.metric, figure.layout) for figure in unnamed] == [
        (f"group/{{policy}}/{group}", "no name before the request") for group in TASTES
    ]
    assert group_figures(WORLD, plain, sets, nobody) == [] == group_figures(None, plain, sets, nobody)


def test_the_figures_are_on_the_sheet_and_in_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_by_groups(sandbox_prompts(WORLD, 20, 5, 0.4, ambiguous_share=0.9), "named")
    monkeypatch.setattr(Data, "prompts_for_test", lambda self: asked)
    sheet = measure("sft", 0, baseline=True)
    metrics = compare_sheets({"sft": sheet}, CONFIG).metrics
    own = [row.responses["sampled"].scores["gold"] for row, prompt in zip(sheet.samples, asked, strict=False)
           if group_of(prompt) == "sailor"]  # fmt: skip
    assert metrics["group/sft/sailor"] == pytest.approx(sum(own) / len(own))
    assert {"asks/sft/ambiguous", "asks/sft/clear_low", "group/sft/teacher_as_other", "group/sft/sailor_high"} <= set(
        metrics
    )
