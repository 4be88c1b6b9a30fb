"""Whatever a line holds, it is read or it is refused in one sentence with file and line; nothing else ever happens."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tasks.data_prep.tokenizer import EOS
from tasks.engine.errors import DataError
from tests.unit.data_prep.samples import write
from tests.unit.data_prep.test_folder import read

FILES = {
    "demonstrations": "demonstrations.jsonl",
    "comparisons": "comparisons.jsonl",
    "rl_prompts": "rl_prompts.jsonl",
    "documents": "pretrain.jsonl",
    "benchmarks": "benchmarks/quiz.jsonl",
}
NAMES = (
    *("prompt", "response", "completion", "chosen", "rejected", "completions", "ranks", "scores", "labels", "labeler"),
    *("completion_a", "completion_b", "messages", "conversations", "instruction", "input", "output", "shots", "text"),
    *("author", "owner_id", "kind", "models", "query", "choices", "gold", "question", "answers", "mc1_targets", "role"),
    *("content", "from", "value", "context", "target", "context_options", "continuation", "source", "overall_score"),
    "annotator",
)
SCALARS: tuple[Any, ...] = (
    *("a text", "", " ", "\ud83d", "\udcb2 x", "\0", "\ufeff", "a" * 300, EOS, "user", "assistant", "tie", "a"),
    *(0, 1, 2, -1, 2**31, 10**40, -(10**400), 1.5, 1.0, float("nan"), float("inf"), True, False, None),
)


def value(draw: random.Random, depth: int) -> Any:
    kind = draw.random()
    if depth == 0 or kind < 0.5:
        return draw.choice(SCALARS)
    if kind < 0.75:
        return [value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(NAMES): value(draw, depth - 1) for _ in range(draw.randrange(4))}


def line(draw: random.Random) -> str:
    """A row of one of the shapes that are read, with some of its fields exchanged for something else."""
    shapes: tuple[dict[str, Any], ...] = (
        {"prompt": "p", "response": "r"},
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "completions": ["a", "b"], "ranks": [1, 2]},
        {"prompt": "p", "completion_a": "a", "completion_b": "b", "labels": {"k": "a"}},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"instruction": "i", "completions": [{"response": "a", "score": 1}, {"response": "b", "score": 2}]},
        {"instruction": "i", "shots": [{"query": "q", "response": "r"}, {"query": "q", "response": "r"}]},
        {"text": "t"},
        {"query": "q", "choices": ["a", "b"], "gold": 1},
        {"question": "q", "mc1_targets": {"choices": ["a", "b"], "labels": [0, 1]}},
    )
    row = dict(draw.choice(shapes))
    for _ in range(draw.randrange(1, 4)):
        row[draw.choice([*row, draw.choice(NAMES)])] = value(draw, 3)
    return json.dumps(row)


@pytest.mark.parametrize("role", FILES)
def test_random_rows_are_read_or_refused_in_one_sentence(tmp_path: Path, role: str) -> None:
    draw = random.Random(role)
    read_well = 0
    for _ in range(300):
        text = line(draw)
        write(tmp_path, {FILES[role]: [text]})
        try:
            records = read(tmp_path, layout="Q: {prompt}")
        except DataError as error:
            said = str(error)
            assert said.startswith(f"{FILES[role]}:1: "), (said, text)
            assert "\n" not in said
            said.encode()  # it can be printed
            assert "cannot be used" not in said, (said, text)  # each of these has a sentence of its own
        else:
            read_well += 1
            for record in getattr(records, role):
                record.model_dump_json()  # every text can be written
    assert read_well > 10


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b'{"prompt": "a \\ud83d"}',
            r"'prompt' holds half of a surrogate pair \(\\ud83d\), expected text that UTF-8 can",
        ),
        (b'{"prompt": "a \\u0000"}', r"'prompt' holds a NUL character \(\\u0000\), expected text that UTF-8 can write"),
        (b'{"prompt": "a", "prompt": "b"}', "'prompt' is given twice, expected a text; keep one of them"),
        (b'{"prompt": 1' + b"0" * 5000 + b"}", "found a number with thousands of digits, expected a number"),
        (b'{"prompt": ' + b"[" * 100000, "found JSON that is nested too deeply, expected fewer levels"),
        (b'{"prompt": NaN}', "'prompt' is a number, expected a text"),
        (b'{"prompt": "\xff"}', "found bytes that are not UTF-8"),
        ('{"prompt": "x"}'.encode("utf-16"), "found bytes that are not UTF-8"),
        (b'{"prompt": "x"}{"prompt": "y"}', r"found broken JSON \(column 16: Extra data\)"),
        (b'{"prompt": "a\x00b"}', r"found broken JSON \(column 14: Invalid control character"),
        (b'{"prompt": "x", "owner_id": "\\udcb2"}', "'owner_id' holds half of a surrogate pair"),
        (b'{"\\udcb2": "x"}', r"'prompt' is missing \(found: \\udcb2\)"),
    ],
)
def test_hostile_lines(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "rl_prompts.jsonl").write_bytes(b'{"prompt": "fine"}\n' + raw + b"\n")
    with pytest.raises(DataError, match=rf"^rl_prompts\.jsonl:2: {message}") as refused:
        read(tmp_path)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("score", [10**400, -(10**400), float("nan"), float("inf"), True])
def test_a_score_that_is_no_number(tmp_path: Path, score: Any) -> None:
    row = {"prompt": "p", "completions": ["a", "b"], "scores": [1, score]}
    with pytest.raises(
        DataError, match=r"comparisons\.jsonl:1: 'scores' holds .*, expected a finite number; correct the"
    ):
        read(write(tmp_path, {"comparisons.jsonl": [row]}))


@pytest.mark.parametrize("rank", [2**31, 10**30])
def test_a_rank_that_no_column_takes(tmp_path: Path, rank: int) -> None:
    row = {"prompt": "p", "completions": ["a", "b"], "ranks": [1, rank]}
    with pytest.raises(
        DataError, match=r"comparisons\.jsonl:1: 'ranks\[1\]' holds a number beyond 2147483647, expected"
    ):
        read(write(tmp_path, {"comparisons.jsonl": [row]}))
