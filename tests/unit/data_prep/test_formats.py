"""Every layout of a row, as its authors publish it, and what becomes of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.data_prep.sources.records import SourceRecords
from tasks.engine.errors import DataError
from tests.unit.data_prep.samples import write
from tests.unit.data_prep.test_folder import read

LAYOUT = "Human: {prompt}\n\nAssistant:"
USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}
LONGER = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
]
LONGER_TEXT = "be kind\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"


def taken(folder: Path, name: str, *rows: Any) -> SourceRecords:
    return read(write(folder, {name: rows}), layout=LAYOUT)


def says(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": speaker, "value": text} for speaker, text in turns]


@pytest.mark.parametrize(
    ("row", "prompt", "response"),
    [
        ({"prompt": "hi", "response": "yo"}, "hi", "yo"),
        ({"prompt": "hi", "completion": "yo"}, "hi", "yo"),
        ({"prompt": [USER], "response": "yo"}, "hi", "yo"),
        ({"prompt": [USER], "completion": [ANSWER]}, "hi", "yo"),
        ({"messages": [USER, ANSWER]}, "hi", "yo"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, ANSWER]}, "hi", "yo"),
        ({"prompt": "ignored title", "messages": [USER, ANSWER]}, "hi", "yo"),
        ({"messages": json.dumps([USER, ANSWER])}, "hi", "yo"),
        ({"prompt": json.dumps([USER]), "response": json.dumps([ANSWER])}, "hi", "yo"),
        ({"prompt": "[1, 2]", "response": '[{"role": "admin"}]'}, "[1, 2]", '[{"role": "admin"}]'),
        ({"conversations": says(("human", "hi"), ("gpt", "yo"))}, "hi", "yo"),
        ({"conversations": says(("human", "hi"), ("gpt", "yo"), ("human", "and?"))}, "hi", "yo"),
        ({"instruction": "Add.", "input": "1 + 1", "output": "2"}, "Add.\n\n1 + 1", "2"),
        ({"instruction": "Add.", "input": "", "output": "2"}, "Add.", "2"),
        ({"instruction": "Say.", "context": "of it", "response": "so"}, "Say.\n\nof it", "so"),
        ({"question": "what?", "answer": "that"}, "what?", "that"),
    ],
)
def test_demonstrations(tmp_path: Path, row: dict[str, Any], prompt: str, response: str) -> None:
    (found,) = taken(tmp_path, "demonstrations.jsonl", row).demonstrations
    assert (found.prompt.text, found.response) == (LAYOUT.replace("{prompt}", prompt), response)


def test_the_turns_before_the_last_answer_are_the_prompt(tmp_path: Path) -> None:
    rows = [
        {"messages": LONGER},
        {
            "conversations": says(("human", "one"), ("gpt", "two"), ("human", "three"), ("gpt", "four")),
            "system": "be kind",
        },
    ]
    found = taken(tmp_path, "demonstrations.jsonl", *rows).demonstrations
    assert [(item.prompt.text, item.response) for item in found] == [(LONGER_TEXT, "four")] * 2
    owners = {item.prompt.owner_id for item in taken(tmp_path, "demonstrations.jsonl", *rows).demonstrations}
    single = taken(tmp_path, "demonstrations.jsonl", {"prompt": "one", "response": "x"}).demonstrations[0]
    assert owners == {single.prompt.owner_id}  # whoever began the conversation


def test_a_developers_message_is_a_system_message(tmp_path: Path) -> None:
    """OpenAI's newer name of the same role."""
    newer = [{"role": "developer", "content": "be kind"}, *LONGER[1:]]
    assert LONGER[0] == {"role": "system", "content": "be kind"}
    found, same = (taken(tmp_path, "rl_prompts.jsonl", {"messages": row}).rl_prompts[0] for row in (newer, LONGER))
    assert found.text == same.text and "be kind" in found.text


def test_a_bare_layout_puts_a_blank_line_between_turns(tmp_path: Path) -> None:
    records = read(write(tmp_path, {"rl_prompts.jsonl": [{"messages": LONGER}]}))
    assert records.rl_prompts[0].text == "be kind\n\none\n\ntwo\n\nthree"


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "hi"}, "hi"),
        ({"prompt": [USER, ANSWER]}, "hi"),
        ({"messages": [USER, ANSWER]}, "hi"),
        ({"conversations": says(("user", "hi"))}, "hi"),
        ({"instruction": "Add.", "input": "1"}, "Add.\n\n1"),
        ({"question": "what?"}, "what?"),
    ],
)
@pytest.mark.parametrize("role", ["rl_prompts", "test_prompts", "toxicity_prompts"])
def test_prompts(tmp_path: Path, role: str, row: dict[str, Any], prompt: str) -> None:
    (found,) = getattr(taken(tmp_path, f"{role}.jsonl", row), role)
    assert found.text == (prompt if role == "toxicity_prompts" else LAYOUT.replace("{prompt}", prompt))


@pytest.mark.parametrize("scores", [[3, 2, 1], [3, 1, 1], [2, 2, 2], [1, 2], [1, "2", 3], None])
def test_scores_beside_ranks_that_contradict_nothing_change_nothing(tmp_path: Path, scores: Any) -> None:
    row = {"prompt": "hi", "completions": ["a", "b", "c"], "ranks": [1, 2, 3], "scores": scores}
    (found,) = taken(tmp_path, "comparisons.jsonl", row).comparisons
    assert found.ranks == [1, 2, 3]


def other(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "completions", "ranks"),
    [
        ({"prompt": "hi", "chosen": "yo", "rejected": "no"}, "hi", ["yo", "no"], [1, 2]),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [other("no")]}, "hi", ["yo", "no"], [1, 2]),
        ({"prompt": "hi", "chosen": [USER, ANSWER], "rejected": [USER, other("no")]}, "hi", ["yo", "no"], [1, 2]),
        ({"chosen": [USER, ANSWER], "rejected": [USER, other("no")]}, "hi", ["yo", "no"], [1, 2]),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "hi", ["yo", "yo"], [1, 2]),
        (
            {"chosen": "\n\nHuman: hi\n\nAssistant: yo", "rejected": "\n\nHuman: hi\n\nAssistant: "},
            "hi",
            ["yo", ""],
            [1, 2],
        ),
        ({"prompt": "hi", "completions": ["a", "b", "c"], "scores": [0.5, 2, 0.5]}, "hi", ["a", "b", "c"], [2, 1, 2]),
        (
            {
                "instruction": "hi",
                "completions": [
                    {"response": "a", "overall_score": 3.5, "model": "m1"},
                    {"response": "b", "overall_score": 8, "model": "m2"},
                ],
            },
            "hi",
            ["a", "b"],
            [2, 1],
        ),
        (
            {
                "prompt": "hi",
                "completions": [{"response": "a", "overall_score": 3}, {"response": "b"}],
                "ranks": [1, 2],
            },
            "hi",
            ["a", "b"],
            [1, 2],
        ),
        ({"prompt": [USER], "completion_a": "a", "completion_b": "b", "labels": {"k": "b"}}, "hi", ["a", "b"], [2, 1]),
    ],
)
def test_comparisons(
    tmp_path: Path, row: dict[str, Any], prompt: str, completions: list[str], ranks: list[int]
) -> None:
    (found,) = taken(tmp_path, "comparisons.jsonl", row).comparisons
    assert found.prompt.text == LAYOUT.replace("{prompt}", prompt)
    assert (found.completions, found.ranks) == (completions, ranks)


def test_what_two_conversations_begin_with_is_the_prompt(tmp_path: Path) -> None:
    row = {"chosen": LONGER, "rejected": [*LONGER[:-1], other("five")]}
    text = "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: "
    pairs = taken(tmp_path, "comparisons.jsonl", row, {"chosen": text + "four", "rejected": text + "five"}).comparisons
    assert [item.prompt.text for item in pairs] == [LONGER_TEXT, LONGER_TEXT.removeprefix("be kind\n\n")]
    assert [item.completions for item in pairs] == [["four", "five"]] * 2


@pytest.mark.parametrize(
    ("role", "row", "rule"),
    [
        ("demonstrations", {"messages": [USER]}, "no_answer"),
        ("demonstrations", {"messages": [ANSWER]}, "no_answer"),
        ("demonstrations", {"messages": [USER, other(" ")]}, "no_answer"),
        ("demonstrations", {"messages": [USER, {"role": "tool", "content": "42"}, ANSWER]}, "tools"),
        ("demonstrations", {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "tools"),
        ("rl_prompts", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not_text"),
        ("rl_prompts", {"messages": [{"role": "system", "content": "x"}]}, "no_request"),
        (
            "comparisons",
            {"chosen": [USER, ANSWER], "rejected": [{"role": "user", "content": "ho"}, ANSWER]},
            "several_turns_differ",
        ),
        (
            "comparisons",
            {"prompt": "p", "completions": [{"response": "a", "score": 1}, {"response": "b", "score": None}]},
            "no_score",
        ),
        (
            "comparisons",
            {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 2, 2], "scores": [0.1, 0.1, 0.2]},
            "ranks_and_scores",
        ),
        (
            "comparisons",
            {
                "prompt": "p",
                "completions": [{"response": "a", "score": 1}, {"response": "b", "score": 2}],
                "ranks": [1, 2],
            },
            "ranks_and_scores",
        ),
    ],
)
def test_rows_of_no_use_are_counted_with_the_place_of_the_first(
    tmp_path: Path, role: str, row: dict[str, Any], rule: str
) -> None:
    records = taken(tmp_path, f"{role}.jsonl", row, row)
    assert getattr(records, role) == []
    assert records.left_out == {role: {rule: 2}}
    assert records.first_left_out == {(role, rule): f"{role}.jsonl:1"}


@pytest.mark.parametrize(
    ("role", "row", "message"),
    [
        ("demonstrations", {"messages": []}, "'messages' is empty, expected a list of chat messages"),
        ("demonstrations", {"messages": ["hi"]}, r"'messages\[0\]' is a text, expected a message \{role, content\}"),
        (
            "demonstrations",
            {"messages": [{"role": "boss", "content": "x"}]},
            r"'messages\[0\].role' is 'boss', expected",
        ),
        ("demonstrations", {"messages": [{"content": "x"}]}, r"'messages\[0\].role' is missing or null, expected one"),
        ("demonstrations", {"messages": [USER, {"role": "assistant"}]}, r"\[1\].content' is missing or null"),
        (
            "demonstrations",
            {"messages": USER},
            "'messages' is an object, expected a list of chat messages; write it in br",
        ),
        (
            "demonstrations",
            {"prompt": "x", "response": [USER]},
            "'response' holds messages of user, expected one message",
        ),
        (
            "demonstrations",
            {"prompt": "x", "response": {"text": "y"}},
            "'response' is an object, expected a text; write it",
        ),
        (
            "comparisons",
            {"prompt": "p", "completions": ["a"], "ranks": [1]},
            "'completions' is a list of 1, expected two or more answers; ",
        ),
        (
            "comparisons",
            {"prompt": "p", "completion_a": "a", "completion_b": "b", "labels": {}},
            "'labels' is empty, expected an object",
        ),
        ("comparisons", {"prompt": "p", "completions": ["a", 2], "ranks": [1, 2]}, r"'completions\[1\]' is a number"),
        (
            "comparisons",
            {"prompt": "p", "completions": ["a", "b"], "scores": [1]},
            "'scores' is a list of 1, expected a",
        ),
        (
            "comparisons",
            {"prompt": "p", "completions": ["a", "b"], "scores": [1, "2"]},
            "'scores' holds a text, expected a",
        ),
        (
            "comparisons",
            {"prompt": "p", "completions": ["a", "b"], "ranks": [1, True]},
            r"'ranks\[1\]' holds true or false, expected a whole number",
        ),
        (
            "comparisons",
            {"prompt": "p", "completion_a": "a", "completion_b": "b", "labels": {"k": ["a"]}},
            "label of k is a list of 1, expected one of a, a-slightly",
        ),
    ],
)
def test_mistakes(tmp_path: Path, role: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"{role}\.jsonl:1: .*{message}"):
        taken(tmp_path, f"{role}.jsonl", row)


def test_fields_that_no_result_depends_on_may_hold_anything(tmp_path: Path) -> None:
    odd = [{"name": "x"}, ["a"], "", 7, None, float("nan")]
    rows = [
        {
            "prompt": f"p{place}",
            "response": "r",
            "author": value,
            "annotator": value,
            "kind": value,
            "source": value,
            "license": value,
        }
        for place, value in enumerate(odd)
    ]
    found = taken(tmp_path, "demonstrations.jsonl", *rows).demonstrations
    # a number is an annotator's name; nothing else that is no text is one
    assert {(item.labeler_id, item.prompt.kind) for item in found} == {("unknown", ""), ("7", "")}
    texts = taken(tmp_path, "pretrain.jsonl", *({"text": "t", "source": value} for value in odd)).documents
    assert {item.source for item in texts} == {"unknown"}
    lone = '{"text": "t", "meta": "\\ud83d", "meta": 1, "id": ' + "9" * 40 + "}"
    assert len(taken(tmp_path, "pretrain.jsonl", lone).documents) == 1


def test_a_row_keeps_what_it_was_before_the_layout(tmp_path: Path) -> None:
    shots = [{"query": "1 + 1", "response": "2"}, {"query": "2 + 2", "response": "4"}]
    records = taken(tmp_path, "demonstrations.jsonl", {"instruction": "Add.", "shots": shots}, {"messages": LONGER})
    origins = [records.origin(item) for item in records.demonstrations]
    assert [origin.where for origin in origins] == [f"demonstrations.jsonl:{line}" for line in (1, 1, 2)]
    assert [turn.content for turn in origins[1].turns] == ["Add.\n\n1 + 1\n2\n\n2 + 2\n"]
    assert [tuple(turn) for turn in origins[2].turns] == [(it["role"], it["content"]) for it in LONGER[:-1]]


@pytest.mark.parametrize("name", ["prompt", "response"])
def test_messages_as_python_prints_them_are_refused_instead_of_read_as_a_text(tmp_path: Path, name: str) -> None:
    row = {"prompt": "hi", "response": "yo", name: str([{"role": "user", "content": "it's"}])}
    with pytest.raises(DataError, match=f"demonstrations.jsonl:1: '{name}' is a list of messages as Python prints it"):
        taken(tmp_path, "demonstrations.jsonl", row)


def test_an_answer_that_shows_such_messages_is_an_answer(tmp_path: Path) -> None:
    shown = "[{'role': 'user', 'content': x}] is what you pass"
    assert taken(tmp_path, "demonstrations.jsonl", {"prompt": "hi", "response": shown}).demonstrations
