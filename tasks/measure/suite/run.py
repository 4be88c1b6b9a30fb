"""Run the harness's tasks on a policy and hand back every item's score."""

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

from tasks.engine.errors import ConfigError, DataError
from tasks.measure.benchmarks import Subject
from tasks.measure.config import MeasureConfig
from tasks.measure.layouts import LAYOUTS
from tasks.measure.suite.config import SUITE, SuiteConfig
from tasks.measure.suite.rows import read_rows
from tasks.measure.suite.scoring import first_line
from tasks.measure.suite.task_files import SuiteTask, chosen, data_file
from tasks.results.answer_metrics import bleu_counts
from tasks.results.sheet import SafetyScores, TaskResult

logger = logging.getLogger("plumbline")


class SuiteResults(NamedTuple):
    """What the harness found."""

    benchmarks: dict[str, TaskResult]
    """By task name, as the harness knows it."""
    safety: list[SafetyScores]


def check_suite(config: SuiteConfig, context_tokens: int) -> None:
    """Whether the asked tasks can run: the package is there, the files are, the names are known and their data is at hand, and
    answers leave room for questions in a model that reads ``context_tokens``.

    Raises:
        PlumblineError: the first thing that is wrong, with its remedy.
    """
    if config.tasks:
        _check_package(config)
        for task in _our_tasks(config):
            if task.answer_tokens >= context_tokens:
                raise ConfigError(
                    f"evaluation.suite.tasks: {task.name} has answers of up to {task.answer_tokens} tokens, which leave no room "
                    f"in model.context_tokens ({context_tokens}); name the tasks that fit, such as instructgpt_hellaswag"
                )
            _split(task, config)
        _other_tasks(config)


def run_suite(subject: Subject, config: MeasureConfig) -> SuiteResults:
    """Ask every item of every task.

    Raises:
        PlumblineError: see :func:`check_suite`; or a task that this model cannot answer.
    """
    suite = config.suite
    if not suite.tasks:
        return SuiteResults({}, [])
    _check_package(suite)
    from lm_eval.evaluator import evaluate

    from tasks.measure.suite.language_model import InMemoryModel

    ours = {task.name: task for task in _our_tasks(suite)}
    with _harness_tells(logging.ERROR):  # it explains its own keys; our task files are checked above
        loaded = {name: _harness_task(task, suite) for name, task in ours.items()}
    loaded |= _other_tasks(suite)
    for task in loaded.values():
        task.set_fewshot_seed(seed=config.seed)
    model = InMemoryModel(subject, config.seed)
    with _harness_tells(logging.WARNING):
        found = evaluate(
            lm=model, task_dict={"tasks": loaded, "groups": {}}, limit=suite.limit, bootstrap_iters=0, log_samples=True
        )
    for name, count in model.shortened.items():
        if count:
            logger.warning(
                "%s: %d prompts did not fit the model's context of %d tokens and lost their beginning",
                *(name, count, model.context_tokens),
            )
    results = SuiteResults({}, [])
    for name, samples in found["samples"].items():
        shortened = model.shortened[name]
        if name not in ours:
            results.benchmarks[name] = _result_of_other(name, loaded[name], samples, shortened)
        elif ours[name].notes.metric:
            results.benchmarks[name] = _result(ours[name], samples, config, shortened)
        else:
            results.safety.extend(_safety(ours[name], samples))
    return results


def _check_package(config: SuiteConfig) -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            f"evaluation.suite.tasks: {config.tasks} need the package lm_eval, which is not installed; "
            "run `pip install -c constraints.txt -e .[eval]`"
        )


def _our_tasks(config: SuiteConfig) -> list[SuiteTask]:
    """Tasks of the suite whose files are there; says which are not."""
    tasks, missing = chosen(config)
    if missing and not tasks:
        raise DataError(
            f"evaluation.suite.folder: {config.folder} has none of the files {', '.join(missing)}; give the folder that has "
            f"them, or take {SUITE} out of evaluation.suite.tasks"
        )
    if missing:
        logger.warning("%s: left out, their files are not in %s: %s", SUITE, config.folder, ", ".join(missing))
    return tasks


def _split(task: SuiteTask, config: SuiteConfig) -> dict[str, list[dict[str, Any]]]:
    """Rows of one task with their question written out; the first ones serve as examples and are not asked."""
    from jinja2 import Environment, StrictUndefined

    path = data_file(str(config.folder), task.notes)
    assert path is not None, f"{task.name}: chosen without its file"
    jinja = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    text, continuation = jinja.from_string(task.notes.text), jinja.from_string(task.notes.continuation)
    prefix = LAYOUTS[task.layout].prefix if task.layout in LAYOUTS else ""
    read = read_rows(path, task.notes.row)
    shots = task.notes.shots if config.shots == "few" else 0
    if len(read) <= shots:
        raise DataError(
            f"{path}: found {len(read)} rows, expected more than the {shots} that serve as examples; add rows or set "
            "evaluation.suite.shots=zero"
        )
    rows = [
        {
            "item_id": f"{task.notes.file}-{number:06d}",
            "text": text.render(fields, prefix=prefix),
            "continuation": continuation.render(fields),
            **fields,
        }
        for number, fields in read[: None if config.limit is None else shots + config.limit]
    ]
    return {"examples": rows[:shots], "items": rows[shots:]}


def _harness_task(task: SuiteTask, config: SuiteConfig) -> Any:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    split = _split(task, config)
    shots = len(split["examples"])
    data = {name: Dataset.from_list(rows) for name, rows in split.items()}
    # Without examples too: the harness would otherwise read through the items to find some.
    examples = {"fewshot_split": "examples", "fewshot_config": {"sampler": "first_n"}, "num_fewshot": shots}
    return ConfigurableTask(config={**task.config, **examples, "test_split": "items", "custom_dataset": lambda: data})


def _other_tasks(config: SuiteConfig) -> dict[str, Any]:
    """Tasks that the harness brings, their data fetched."""
    names = config.of_harness
    if not names:
        return {}
    manager = _manager()
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ConfigError(
            f"evaluation.suite.tasks: lm-evaluation-harness knows no task {unknown[0]!r}; `python -m lm_eval ls tasks` lists "
            "what it knows"
        )
    try:
        loaded: dict[str, Any] = manager.load(names)["tasks"]
    except Exception as error:  # the harness and the hub raise what they like; the message keeps it
        raise DataError(
            f"evaluation.suite.tasks: the data of {', '.join(names)} cannot be loaded ({type(error).__name__}: {error}); these "
            f"tasks fetch it from a hub, so connect to the network or keep to {SUITE}"
        ) from error
    for name, task in loaded.items():
        if getattr(task, "UNSAFE_CODE", False):
            raise ConfigError(f"evaluation.suite.tasks: {name} runs code that the model writes; leave it out")
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return loaded


@lru_cache(maxsize=1)
def _manager() -> Any:
    """The harness's list of its tasks; seconds to make."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _result(task: SuiteTask, samples: Sequence[Mapping[str, Any]], config: MeasureConfig, shortened: int) -> TaskResult:
    notes = task.notes
    score = config.benchmark_normalisation if task.config["output_type"] == "multiple_choice" else notes.metric
    pairs = [
        (first_line(sample["filtered_resps"][0]), sample["doc"]["references"][0])
        for sample in samples
        if notes.metric == "bleu"
    ]
    return TaskResult(
        item_ids=[sample["doc"]["item_id"] for sample in samples],
        correct=[float(sample[score]) for sample in samples],
        metric=notes.metric,
        shots=notes.shots if config.suite.shots == "few" else 0,
        shortened=shortened,
        bleu_counts=[bleu_counts(answer, reference) for answer, reference in pairs],
    )


def _result_of_other(name: str, task: Any, samples: Sequence[Mapping[str, Any]], shortened: int) -> TaskResult:
    """The first metric that is a number per item, averaged, and better when higher."""
    first_filter = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    better, mean = task.higher_is_better(), task.aggregation()
    for metric in first_filter[0]["metrics"]:
        values = [sample[metric] for sample in first_filter]
        averaged = getattr(mean.get(metric), "__name__", "") in ("mean", "nanmean")
        if better.get(metric) and averaged and all(isinstance(value, (int, float)) for value in values):
            return TaskResult(
                item_ids=[f"{name}-{sample['doc_id']:06d}" for sample in first_filter],
                correct=[float(value) for value in values],
                metric=str(metric),
                shots=int(task.get_config("num_fewshot")),
                shortened=shortened,
            )
    raise ConfigError(
        f"evaluation.suite.tasks: {name} has the metrics {list(first_filter[0]['metrics'])}, none of which is a number per item "
        "that is averaged and better when higher, as a paired comparison needs; leave it out"
    )


def _safety(task: SuiteTask, samples: Sequence[Mapping[str, Any]]) -> Iterator[SafetyScores]:
    for key, text in task.notes.figures.items():
        yield SafetyScores(
            measure=text.measure,
            layout=LAYOUTS[task.layout].told,
            scorer=task.notes.scorer,
            unit=text.unit,
            values=[float(sample[key]) for sample in samples],
        )


@contextmanager
def _harness_tells(what: int) -> Iterator[None]:
    """The harness tells every step and draws a bar for every task; only messages of this level and above are kept."""
    from lm_eval.api import task as harness_task

    harness = logging.getLogger("lm_eval")
    level, bar = harness.level, harness_task.tqdm
    harness.setLevel(what)
    harness_task.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        harness.setLevel(level)
        harness_task.tqdm = bar
