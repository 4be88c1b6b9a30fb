"""Questions with right and wrong answers: RewardBench 2's metrics by hand, its layout, and the scoring of a real model."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flows.config import load
from tasks.engine.errors import DataError
from tasks.language.batches import pad_batch
from tasks.language.named_layout import laid_out
from tasks.language.tokenizer import save_tokenizer
from tasks.reward_model.best_of_many import ScoredQuestion, accuracy_by_subset, credit, ties
from tasks.reward_model.job import QuestionsJob
from tasks.reward_model.question_files import QuestionRow, read_questions
from tasks.reward_model.questions import scored
from tests.unit import tiny_models as tiny
from tests.unit.reward_model.test_train import scalar_model


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ([2.0], [1.0, 0.0, -1.0], 1.0),
        ([1.0], [1.0, 0.0, -1.0], 0.5),  # two share the top, one of them is right
        ([0.0], [0.0, 0.0, 0.0], 0.25),
        ([0.0], [1.0, -1.0, -1.0], 0.0),
    ],
)
def test_a_right_answer_is_credited_with_its_share_of_the_top(
    right: list[float], wrong: list[float], expected: float
) -> None:
    assert credit(ScoredQuestion("1", "math", right, wrong)) == expected


def test_accuracy_is_by_subset() -> None:
    found = accuracy_by_subset(
        [
            ScoredQuestion("1", "math", [2.0], [1.0]),
            ScoredQuestion("2", "math", [1.0], [1.0]),
            ScoredQuestion("3", "focus", [0.0], [9.0]),
        ]
    )
    assert found == {"focus": 0.0, "math": 0.75}


def test_ties_by_hand() -> None:
    found = ties(
        [
            ScoredQuestion("ref:1", "Ties", [5.0], [2.0, 1.0]),  # gap 3
            ScoredQuestion("tied:1", "Ties", [6.0, 4.0], [3.0, 0.0]),  # gap 1, spread 2
            ScoredQuestion("ref:2", "Ties", [4.0], [3.5]),  # gap 0.5
            ScoredQuestion("tied:2", "Ties", [5.0, 4.0], [2.0]),  # gap 2, spread 1
            ScoredQuestion("ref:3", "Ties", [0.0], [0.0]),  # no gap; its twin is missing
        ]
    )
    assert found is not None
    assert (found.ref_accuracy, found.tied_accuracy) == (pytest.approx(2 / 3), 1.0)
    assert (found.preferred, found.preferred_hard) == (0.5, 0.0)  # 1 > 2 not, 2 > 1; min(3, 1) and min(0.5, 2) not
    margin = (math.tanh(1 / 2 - 1) + math.tanh(0.5 / 1 - 1)) / 2
    assert found.margin == pytest.approx(margin)
    assert found.score == pytest.approx(0.3 * 1.0 + 0.3 * 2 / 3 + 0.2 * 0.5 + 0.01 * margin)


@pytest.mark.parametrize(("wrong", "margin"), [(0.0, 1.0), (1.0, 0.0), (2.0, -1.0)])
def test_right_answers_that_score_alike_have_no_spread_to_divide_by(wrong: float, margin: float) -> None:
    twins = [ScoredQuestion("ref:1", "Ties", [9.0], [0.0]), ScoredQuestion("tied:1", "Ties", [1.0, 1.0], [wrong])]
    found = ties(twins)
    assert found is not None and found.margin == margin
    assert ties(twins[:1]) is None and ties([]) is None


def test_the_layout_of_reward_bench_2_is_read_and_a_wrong_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(
        '{"id": "7", "prompt": "1 + 1?", "chosen": ["2"], "rejected": ["3", "4", "5"], "num_correct": 1, "subset": "Math", '
        '"models": ["a"]}\n'
    )
    assert read_questions(file) == [
        QuestionRow(id="7", prompt="1 + 1?", chosen=["2"], rejected=["3", "4", "5"], subset="Math")
    ]
    file.write_text(file.read_text() + '{"id": "8", "prompt": "1 + 1?", "chosen": [], "rejected": ["3"]}\n')
    with pytest.raises(DataError, match=r"questions\.jsonl:2: 'chosen': .*expected an object with id, prompt, chosen"):
        read_questions(file)
    file.write_text("[1]\n")
    with pytest.raises(DataError, match=r"questions\.jsonl:1: Input should be a valid dictionary"):
        read_questions(file)
    file.write_text("")
    with pytest.raises(DataError, match="found no question"):
        read_questions(file)
    with pytest.raises(DataError, match="reward_questions: found no file"):
        read_questions(tmp_path / "nowhere.jsonl")


def test_a_tie_without_a_name_that_counts_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"

    def write(*ids: str | int, subset: str = "Ties") -> Path:
        rows = [{"id": each, "prompt": "?", "chosen": ["2"], "rejected": ["3"], "subset": subset} for each in ids]
        file.write_text("\n".join(json.dumps(row) for row in rows))
        return file

    assert [row.id for row in read_questions(write("ref:1", "tied:1", "ref:2"))] == ["ref:1", "tied:1", "ref:2"]
    assert [row.id for row in read_questions(write(1, 1, subset="Math"))] == ["1", "1"]
    for ids, message in (
        (("ref:1", "tied1"), r"questions\.jsonl:2: found the id 'tied1' in the subset Ties, expected ref:N"),
        (("ref:1", "tied:1", "ref:1"), r"questions\.jsonl:3: found a second id 'ref:1', as questions\.jsonl:1 in"),
        (("ref:1", "tied:2"), r"found no ref:N with its tied:N in the subset Ties, expected at least one"),
    ):
        with pytest.raises(DataError, match=message):
            read_questions(write(*ids))


@pytest.mark.parametrize("budget", [12, 10_000])
def test_every_answer_gets_its_own_score_behind_the_datas_layout(tmp_path: Path, budget: int) -> None:
    save_tokenizer(tiny.tokenizer(), tmp_path / "tokenizer")
    model = scalar_model()
    job = QuestionsJob(file="", prompt_layout="q : {prompt} a :", prompt_tokens=12, response_tokens=8)
    shop: Any = SimpleNamespace(runtime=tiny.runtime(tokens_per_microbatch=budget), input=lambda _: tmp_path)
    rows = [
        QuestionRow(id="1", prompt="is the cat red", chosen=["red"], rejected=["blue .", "the big cat"], subset="Math"),
        QuestionRow(id="2", prompt="the cat", chosen=["small", "big"], rejected=["?"]),
    ]
    found = scored(rows, model, shop, job)

    def alone(prompt: str, answer: str) -> float:
        ids = [tiny.tokenizer()(f"q : {prompt} a :")["input_ids"], [*tiny.tokenizer()(answer)["input_ids"], tiny.EOS]]
        with torch.no_grad():
            return float(model.scores(pad_batch([ids[0]], [ids[1]], 0)))

    expected = [
        [[alone(row.prompt, answer) for answer in answers] for answers in (row.chosen, row.rejected)] for row in rows
    ]
    for question, (right, wrong) in zip(found, expected, strict=True):
        assert question.right == pytest.approx(right, abs=1e-5) and question.wrong == pytest.approx(wrong, abs=1e-5)
    assert [question.subset for question in found] == ["Math", "all"]


def test_the_layout_is_the_datas() -> None:
    assert laid_out(["hi"], "Human: {prompt}\n\nAssistant:", tiny.tokenizer()) == ["Human: hi\n\nAssistant:"]
    assert laid_out(["hi"], "auto", tiny.tokenizer()) == ["hi"]


def test_the_key_knows_the_files_content(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("{}")
    job = load([f"reward_questions={file}"]).questions_job
    before = job.fingerprint_fields()
    file.write_text("{ }")
    assert job.fingerprint_fields() != before and str(tmp_path) not in str(before)
    assert load([]).reward_questions is None
