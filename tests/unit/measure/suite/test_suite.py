"""The suite end to end on made-up rows: prompts as in the paper, every item's score, what is missing or wrong."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval")
from lm_eval.models.huggingface import HFLM

from flows.evaluation_config import EvaluationConfig
from tasks.engine.errors import ConfigError, DataError
from tasks.measure.layouts import LAYOUTS
from tasks.measure.suite import language_model, run
from tasks.measure.suite.config import SuiteConfig
from tasks.measure.suite.run import SuiteResults, check_suite, run_suite
from tasks.measure.suite.scoring import LogProb
from tasks.results.sheet import TaskResult
from tests.unit.measure.suite import tiny
from tests.unit.results.sheets import evaluation_config

ROWS = 18
BENCHMARKS = {
    "instructgpt_drop": ("f1", 4),
    "instructgpt_fr_en": ("bleu", 15),
    "instructgpt_hellaswag": ("accuracy", 15),
    "instructgpt_lambada": ("accuracy", 0),
    "instructgpt_quac": ("f1", 2),
    "instructgpt_rte": ("accuracy", 15),
    "instructgpt_squadv2": ("f1", 4),
    "instructgpt_sst": ("accuracy", 15),
    "instructgpt_tldr": ("rouge_l", 0),
    "instructgpt_wsc": ("accuracy", 15),
}


def config(folder: Path | None, *, tasks: tuple[str, ...] = ("instructgpt",), **changes: Any) -> EvaluationConfig:
    suite = {"tasks": list(tasks), "folder": folder and str(folder), "shots": "few", "limit": None}
    return evaluation_config("own_data", bootstrap_samples=100, suite=suite | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_files(tmp_path_factory.mktemp("benchmarks"), ROWS)


class Scripted(language_model.InMemoryModel):
    """Answers from a table and keeps every request."""

    said: dict[str, str] = {}
    asked: list[tuple[str, str, Any]] = []

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        self.asked += [(request.task_name, *request.args) for request in requests]
        return super().loglikelihood(requests)

    def generate_until(self, requests: list[Any]) -> list[str]:
        self.asked += [(request.task_name, *request.args) for request in requests]
        return [self.said.get(request.task_name, " x") for request in requests]


def scripted(monkeypatch: pytest.MonkeyPatch, folder: Path, said: dict[str, str], **changes: Any) -> SuiteResults:
    monkeypatch.setattr(Scripted, "said", said)
    monkeypatch.setattr(Scripted, "asked", [])
    monkeypatch.setattr(language_model, "InMemoryModel", Scripted)
    return run_suite(tiny.subject(), config(folder, **changes))


def test_every_task_scores_every_item_and_safety_stands_apart(folder: Path) -> None:
    found = run_suite(tiny.subject(), config(folder, limit=4))
    assert {name: (result.metric, result.shots) for name, result in found.benchmarks.items()} == BENCHMARKS
    for name, result in found.benchmarks.items():
        assert len(result.correct) == len(set(result.item_ids)) == min(4, ROWS - BENCHMARKS[name][1])
    figures = {(figure.measure, figure.layout.partition(":")[0]): figure for figure in found.safety}
    assert len(figures) == len(found.safety) == 2 * 3 + 3 * 3 + 2 * 3
    assert len(figures["Winogender bias entropy", "basic"].values) == 4
    assert figures["CrowS-Pairs bias entropy", "biased"].unit == "bits"
    assert figures["TruthfulQA MC2", "instruction + QA"].scorer is None
    assert figures["TruthfulQA answers true", "QA"].scorer == "nearest reference (ROUGE-L)"


def test_it_can_be_repeated_and_leaves_global_random_numbers_alone(tmp_path: Path) -> None:
    tiny.write_files(tmp_path, 6, "drop", "winogender")
    one, other = tiny.subject(), tiny.subject()
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    found = run_suite(one, config(tmp_path))
    assert np.random.get_state()[1].tolist() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert found == run_suite(other, config(tmp_path))
    assert len(found.safety[0].values) == 3  # pairs with a named participant, of six


def test_choices_are_scored_as_the_harness_does(tmp_path: Path) -> None:
    """Its own accuracy on the same task file, with its own wrapper of the same weights."""
    from lm_eval.evaluator import evaluate

    tiny.write_files(tmp_path, ROWS, "hellaswag")
    suite = config(tmp_path, shots="zero").suite
    task = next(task for task in run.chosen(suite)[0] if task.name == "instructgpt_hellaswag")
    loaded = run._harness_task(task, suite)
    loaded.config.process_results = None
    loaded._metric_fn_list = {"acc": None}
    loaded._aggregation_list = {"acc": np.mean}
    theirs = HFLM(
        pretrained=tiny.model(), tokenizer=tiny.tokenizer(), batch_size=2, max_length=tiny.CONTEXT, device="cpu"
    )
    expected = evaluate(lm=theirs, task_dict={"tasks": {task.name: loaded}, "groups": {}}, bootstrap_iters=0)
    by_sum = config(tmp_path, shots="zero").model_copy(update={"benchmark_normalisation": "sum"})
    ours = run_suite(tiny.subject(), by_sum)
    assert ours.benchmarks[task.name].correct == [sample["acc"] for sample in expected["samples"][task.name]]


class LongWinded(language_model.InMemoryModel):
    """The shortest choice has the largest sum, the longest the largest mean."""

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        sizes = [len(request.args[1]) for request in requests]
        return [(LogProb(-1 - size / 10, size), False) for size in sizes]


@pytest.mark.parametrize(("rule", "chosen"), [("sum", "Two."), ("per_token", "It flew off.")])
def test_the_configured_rule_decides_a_choice(
    rule: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model, "InMemoryModel", LongWinded)
    tiny.write_files(tmp_path, 3, "hellaswag")
    how = config(tmp_path, shots="zero").model_copy(update={"benchmark_normalisation": rule})
    rows = [tiny.ROWS["hellaswag"](number) for number in range(3)]
    found = run_suite(tiny.subject(), how).benchmarks["instructgpt_hellaswag"]
    assert found.correct == [float(row["choices"][row["gold"]] == chosen) for row in rows]


def test_prompts_are_the_papers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, folder, {})
    first = {task: context for task, context, _ in reversed(Scripted.asked)}
    squad = first["instructgpt_squadv2"]
    assert squad.startswith(
        "Answer each question using information in the preceding background paragraph. If there is not enough information "
        'provided, answer with "Not in background."\n\nTitle: Mats\n\nBackground: Cat 0 sat on mat 0.\n\nQ: Where did cat 0 '
        "sit?\n\nA: Not in background.\n\nTitle: Mats\n\n"
    )
    assert squad.endswith("Background: Cat 4 sat on mat 4.\n\nQ: Where did cat 4 sit?\n\nA:")
    assert squad.count("\nA:") == 5
    assert first["instructgpt_drop"].endswith("Passage: 4 men walk.\nQuestion: How many?\nAnswer:")
    assert first["instructgpt_quac"].endswith(
        "TITLE: Mats\n\nPARAGRAPH: Background: cats.\n\nContext: Cat 2 sat.\n\nQ: Who?\n\nA: a cat\n\nQ: When?\n\n"
        "A: I don't know.\n\nQ: Where?\n\nA:"
    )
    assert first["instructgpt_rte"].endswith(
        "Passage: 15 cats sat.\nQuestion: From this passage can one reasonably conclude that Cats sat?\nAnswer:"
    )
    assert first["instructgpt_sst"].count("\nLabel:") == 16
    assert first["instructgpt_fr_en"].endswith("French: Le chat 15 dort sur le tapis rouge.\nEnglish:")
    assert first["instructgpt_tldr"] == "My cat 0 sat all day.\n\nTL;DR:"
    assert first["instructgpt_wsc"].endswith("Ann 14 told Bo because Ann was late.\n\nAnn 15 told Bo because Ann")
    assert first["instructgpt_winogender_basic"] == ""
    assert first["instructgpt_winogender_biased"] == LAYOUTS["biased"].prefix
    assert first["instructgpt_truthfulqa_answer_qa"].count("\nA:") == 7
    assert first["instructgpt_truthfulqa_answer_qa"].endswith("\n\nQ: What does cat 0 do?\nA:")
    conts = {(task, continuation) for task, _, continuation in Scripted.asked if isinstance(continuation, str)}
    assert ("instructgpt_lambada", " mat") in conts
    assert ("instructgpt_winogender_basic", "The teacher told pupil 0 that she was late.") in conts


def test_zero_shot_asks_every_row_without_examples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scripted(monkeypatch, folder, {}, shots="zero")
    assert {len(result.correct) for result in found.benchmarks.values()} == {ROWS}
    assert {result.shots for result in found.benchmarks.values()} == {0}
    drop = next(context for task, context, _ in Scripted.asked if task == "instructgpt_drop")
    assert drop == (
        "Answer each question using information in the preceding passage.\n\nPassage: 0 men walk.\nQuestion: How many?\nAnswer:"
    )


def test_answers_are_scored_by_their_task_and_cut_at_the_first_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "instructgpt_squadv2": " Not in background\nA: mat 1",
        "instructgpt_quac": " i don't know",
        "instructgpt_drop": " 7 men",
        "instructgpt_fr_en": " The cat 16 sleeps on the red mat.",
        "instructgpt_tldr": " Cat 3 sat.",
        "instructgpt_truthfulqa_answer_qa": " Cats 0 fly.",
        "instructgpt_truthfulqa_answer_instruction": " I have no comment",
    }
    found = scripted(monkeypatch, folder, said, shots="zero")
    score = {name: result.correct for name, result in found.benchmarks.items()}
    assert score["instructgpt_squadv2"] == [float(number % 3 == 0) for number in range(ROWS)]
    assert score["instructgpt_quac"] == [float(number % 2 == 1) for number in range(ROWS)]
    assert score["instructgpt_drop"][7] == 1.0
    assert score["instructgpt_drop"][8] == 0.0  # the right word with the wrong number
    assert score["instructgpt_tldr"][3] == 1.0
    translated: TaskResult = found.benchmarks["instructgpt_fr_en"]
    assert len(translated.bleu_counts) == ROWS
    assert translated.correct[16] == pytest.approx(1.0)
    figures = {(item.measure, item.layout.partition(":")[0]): float(np.mean(item.values)) for item in found.safety}
    assert figures["TruthfulQA answers true", "QA"] == 0.0
    assert figures["TruthfulQA answers informative", "QA"] == 1.0
    assert figures["TruthfulQA answers true", "instruction"] == 1.0
    assert figures["TruthfulQA answers true and informative", "instruction"] == 0.0


def test_a_limit_takes_the_first_items(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scripted(monkeypatch, folder, {}, limit=2)
    assert found.benchmarks["instructgpt_drop"].item_ids == ["drop-000005", "drop-000006"]


def test_files_that_are_missing_are_listed_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny.write_files(tmp_path, 3, "tldr", "crows_pairs")
    with caplog.at_level(logging.WARNING, logger="plumbline"):
        check_suite(config(tmp_path).suite, tiny.CONTEXT)
    assert "left out, their files are not in" in caplog.text
    assert "drop.jsonl, fr_en_wmt.jsonl, hellaswag.jsonl" in caplog.text
    assert "tldr.jsonl" not in caplog.text
    found = run_suite(tiny.subject(), config(tmp_path))
    assert list(found.benchmarks) == ["instructgpt_tldr"]
    assert {figure.measure for figure in found.safety} == {"CrowS-Pairs bias entropy"}


def test_single_tasks_of_the_suite_can_be_named(folder: Path) -> None:
    named = ("instructgpt_sst", "instructgpt_winogender", "instructgpt_crows_pairs_biased")
    found = run_suite(tiny.subject(), config(folder, tasks=named, limit=2))
    assert list(found.benchmarks) == ["instructgpt_sst"]
    assert [figure.layout.partition(":")[0] for figure in found.safety] == ["biased", "basic", "respectful", "biased"]
    with pytest.raises(
        ConfigError, match=r"no task 'instructgpt_drp'; expected instructgpt, instructgpt_crows_pairs, "
    ):
        check_suite(config(folder, tasks=("instructgpt_drp",)).suite, tiny.CONTEXT)


def test_a_model_too_short_for_an_answer_is_said_before_any_work(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"instructgpt_drop has answers of up to 32 tokens.*model\.context_tokens \(32\)"
    ):
        check_suite(config(folder).suite, 32)
    check_suite(config(folder, tasks=("instructgpt_hellaswag",)).suite, 32)


def test_no_file_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has none of the files crows_pairs\.jsonl, drop\.jsonl"):
        check_suite(config(tmp_path).suite, tiny.CONTEXT)


def test_too_few_rows_for_the_examples_are_an_error(tmp_path: Path) -> None:
    tiny.write_files(tmp_path, 15, "sst2")
    with pytest.raises(DataError, match=r"found 15 rows, expected more than the 15 that serve as examples"):
        check_suite(config(tmp_path).suite, tiny.CONTEXT)
    check_suite(config(tmp_path, shots="zero").suite, tiny.CONTEXT)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("drop", "{", r"drop\.jsonl:19: found broken JSON"),
        ("drop", "[1]", r"drop\.jsonl:19: found list, expected a JSON object"),
        (
            "drop",
            '{"passage": "x", "question": "y", "answers": []}',
            r"19: 'answers' holds list, expected a list of at least 1",
        ),
        ("rte", '{"premise": "x", "hypothesis": "y", "label": 2}', "'label' holds 2, expected a number from 0 to 1"),
        (
            "drop",
            '{"passage": "x \\ud83d", "question": "y", "answers": ["z"]}',
            r"drop\.jsonl:19: 'passage' holds half of a surrogate pair",
        ),
        ("drop", "[" * 100000, r"drop\.jsonl:19: found JSON that is nested too deeply"),
        ("quac", '{"context": "no title", "question": "y"}', "'context' holds str, expected 'Title: "),
        ("squadv2", '{"title": "x", "is_impossible": "no"}', "'is_impossible' holds str, expected true or false"),
    ],
)
def test_a_wrong_row_is_named(folder: Path, tmp_path: Path, name: str, line: str, message: str) -> None:
    shutil.copy(folder / f"{name}.jsonl", tmp_path)
    with (tmp_path / f"{name}.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        check_suite(config(tmp_path).suite, tiny.CONTEXT)


def test_without_the_package_the_remedy_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"need the package lm_eval.*pip install -c constraints\.txt -e \.\[eval\]"):
        check_suite(config(folder).suite, tiny.CONTEXT)


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ({"tasks": ["instructgpt"], "folder": None}, "folder must name the folder"),
        ({"tasks": ["arc_easy"], "folder": "x"}, "only the task instructgpt reads"),
        ({"tasks": ["arc_easy", "arc_easy"], "folder": None}, "name each once"),
    ],
)
def test_settings_that_nothing_reads_are_refused(suite: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuiteConfig.model_validate({"shots": "few", "limit": None} | suite)


def test_the_fingerprint_follows_the_files_and_not_their_place(folder: Path, tmp_path: Path) -> None:
    moved = tiny.write_files(tmp_path / "moved", ROWS)
    assert config(folder).fingerprint_fields() == config(moved).fingerprint_fields()
    tiny.write_files(moved, ROWS + 1, "drop")
    assert config(folder).fingerprint_fields() != config(moved).fingerprint_fields()
    assert "squadv2.yaml" in config(folder).fingerprint_fields()["suite"]["task_files"]


class Manager:
    """The harness's list of tasks, with some whose data is at hand; one looks at every answer through two filters."""

    all_tasks = ["cats", "essays", "away"]

    def load(self, names: list[str]) -> dict[str, Any]:
        from datasets import Dataset
        from lm_eval.api.task import ConfigurableTask

        if "away" in names:
            raise ConnectionError("Couldn't reach the Hub")
        rows = [{"query": f"cat {n}", "choices": ["sat", "flew"], "gold": n % 2, "said": "x"} for n in range(5)]
        common = {
            "test_split": "test",
            "custom_dataset": lambda: {"test": Dataset.from_list(rows)},
            "doc_to_text": "query",
        }
        if names == ["cats"]:
            metrics = ("acc", "acc_norm")
            own = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
            own["filter_list"] = [{"name": name, "filter": [{"function": "take_first"}]} for name in ("strict", "lax")]
        else:
            metrics = ("bleu",)
            own = {
                "output_type": "generate_until",
                "doc_to_target": "said",
                "generation_kwargs": {"until": ["."], "max_gen_toks": 4, "do_sample": False},
            }
        listed = [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics]
        if metrics == ("bleu",):
            listed[0]["aggregation"] = "bleu"
        return {
            "tasks": {names[0]: ConfigurableTask(config={"task": names[0], "metric_list": listed, **common, **own})}
        }


def test_any_other_task_of_the_harness_gives_its_first_metric_item_by_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_manager", Manager)
    found = run_suite(tiny.subject(), config(None, tasks=("cats",), limit=4)).benchmarks["cats"]
    assert found.item_ids == [f"cats-00000{row}" for row in range(4)]
    assert found.metric == "acc"
    assert set(found.correct) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("dogs", ConfigError, "knows no task 'dogs'"),
        (
            "away",
            DataError,
            r"data of away cannot be loaded \(ConnectionError: Couldn't reach the Hub\).* connect",
        ),
    ],
)
def test_a_task_that_cannot_be_had_is_said_before_any_work(
    task: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_manager", Manager)
    with pytest.raises(error, match=message):
        check_suite(config(None, tasks=(task,)).suite, tiny.CONTEXT)


def test_a_task_without_a_figure_per_item_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_manager", Manager)
    with pytest.raises(ConfigError, match=r"essays has the metrics \['bleu'\], none of which is a number per item"):
        run_suite(tiny.subject(), config(None, tasks=("essays",)))


@pytest.mark.slow
def test_the_harness_s_own_list_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="knows no task 'arc_esy'"):
        check_suite(config(None, tasks=("arc_esy",)).suite, tiny.CONTEXT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="data of arc_easy cannot be loaded"):
        check_suite(config(None, tasks=("arc_easy",)).suite, tiny.CONTEXT)
