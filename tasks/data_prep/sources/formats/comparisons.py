"""Comparisons: a request, answers to it, and which of them is better.

::

    {"prompt": ..., "chosen": ..., "rejected": ...}     texts or chat messages; what both conversations begin with is the prompt
    {"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": ...}      transcripts of HH, with the prompt in them
    {"prompt": ..., "completions": [K], "ranks": [K]}   1 is best, equal ranks are ties; optional "models", and of each
                                                        completion "quality" and "flags", and "seconds" of all
    {"prompt": ..., "completions": [K], "scores": [K]}  the highest is best
    {"instruction": ..., "completions": [{"response": ..., "overall_score": ...}, ...]}     UltraFeedback
    {"prompt": ..., "completion_a": ..., "completion_b": ..., "labels": {"annotator": "a"}}     one comparison per annotator

The request may be carried by any field that ``requests`` reads.
"""

from collections.abc import Callable
from typing import Any

from tasks.data_prep.sources.formats.requests import request_of
from tasks.data_prep.sources.messages import shared_beginning, transcript, turns_in
from tasks.data_prep.sources.records import LeftOut
from tasks.data_prep.sources.rows import Row
from tasks.data_prep.sources.values import LARGEST, kind_of, whole, writable
from tasks.language.chat_layout import Turn
from tasks.records.records import Comparison

LABELS = {"a": [1, 2], "a-slightly": [1, 2], "tie": [1, 1], "b-slightly": [2, 1], "b": [2, 1]}
"""Label of a pair -> ranks of its two completions."""
SCORES = ("overall_score", "score")


def comparisons_of(row: Row) -> list[Comparison]:
    """One ranking, one pair, or one comparison per annotator."""
    if "completions" in row.fields:
        return [_ranking(row)]
    if "chosen" in row.fields or "rejected" in row.fields:
        request, pair = _pair(row)
        return [Comparison(prompt=row.prompt(request), completions=pair, ranks=[1, 2], labeler_id=row.labeler())]
    if "completion_a" in row.fields:
        prompt = row.prompt(request_of(row))
        pair = [row.said("completion_a"), row.said("completion_b")]
        names = [row.label("model_a"), row.label("model_b")]
        policies = [name for name in names if name] if all(names) else []
        return [
            Comparison(prompt=prompt, completions=pair, ranks=ranks, labeler_id=name, source_policy=policies)
            for name, ranks in _labels(row).items()
        ]
    raise row.error(
        f"no responses (found: {row.keys})",
        "'chosen' and 'rejected', 'completions' and 'ranks', or 'completion_a', 'completion_b' and 'labels'",
        "rename the fields or exclude the file",
    )


def _ranking(row: Row) -> Comparison:
    given = row.value("completions")
    if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        answers = [Row(item, f"{row.where}: completions[{place}]") for place, item in enumerate(given)]
        completions = [answer.said("response") for answer in answers]
        models = [answer.label("model") for answer in answers]
        ranks = _ranks(row) if row.has("ranks") else by_score([_score(answer) for answer in answers])
        scores: Any = [next((answer.fields[name] for name in SCORES if answer.has(name)), None) for answer in answers]
    else:
        completions = row.texts("completions")
        models = row.value("models") or []
        ranks = by_score(_scores(row)) if row.has("scores") and not row.has("ranks") else _ranks(row)
        scores = row.value("scores")
    if len(completions) < 2:
        found = f"'completions' is a list of {len(completions)}"
        raise row.error(found, "two or more answers", "add the others or remove the row")
    if _contradict(ranks, scores):
        raise LeftOut("ranks_and_scores")
    named = isinstance(models, list) and len(models) == len(completions) and all(isinstance(it, str) for it in models)
    return Comparison(
        prompt=row.prompt(request_of(row)),
        completions=completions,
        ranks=ranks,
        labeler_id=row.labeler(),
        source_policy=[writable(row.where, "models", str(model)) for model in models] if named else [],
        **_marked(row, len(completions)),
    )


def _marked(row: Row, count: int) -> dict[str, Any]:
    """What a labeler marked beside the ranks, where a field has that form; a field of another meaning is no mark."""
    quality, flags, seconds = row.value("quality"), row.value("flags"), row.value("seconds")
    found: dict[str, Any] = {}
    if _each(quality, count, lambda level: level is None or (type(level) is int and 0 < level <= LARGEST)):
        found["quality"] = quality
    if _each(flags, count, lambda names: isinstance(names, list) and all(isinstance(name, str) for name in names)):
        found["flags"] = [[writable(row.where, "flags", name) for name in names] for names in flags]
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= LARGEST:
        found["seconds"] = float(seconds)
    return found


def _each(values: Any, count: int, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(fits, values))


def _pair(row: Row) -> tuple[list[Turn], list[str]]:
    names = ("chosen", "rejected")
    lists = [row.messages(name) for name in names]
    if all(lists):
        talks = [turns_in(messages or [], row.where, name) for name, messages in zip(names, lists, strict=True)]
        request, pair = shared_beginning(talks)
        return request or request_of(row), pair
    if not row.has("prompt") and row.has(*names):
        transcripts = [transcript(row.said(name)) for name in names]
        if all(transcripts):
            return shared_beginning([turns or [] for turns in transcripts])
    return request_of(row), [row.said(name) for name in names]


def _ranks(row: Row) -> list[int]:
    given = row.value("ranks")
    if not isinstance(given, list):
        raise row.error(
            f"'ranks' is {kind_of(given)}", "a list of whole numbers, 1 for the best", "rank every completion"
        )
    return [whole(row.where, f"ranks[{place}]", rank) for place, rank in enumerate(given)]


def _scores(row: Row) -> list[float]:
    given, count = row.value("scores"), len(row.texts("completions"))
    if not isinstance(given, list) or len(given) != count:
        raise row.error(f"'scores' is {kind_of(given)}", f"a list of {count} numbers", "score every completion")
    return [_number(row, "scores", score) for score in given]


def _contradict(ranks: list[int], scores: Any) -> bool:
    """Whether scores beside ranks put two answers the other way round; where either has a tie, nothing is contradicted."""
    if not _each(scores, len(ranks), lambda score: type(score) in (int, float)):
        return False
    given = list(zip(ranks, scores, strict=True))
    return any(rank < other and score < its for rank, score in given for other, its in given)


def _score(answer: Row) -> float:
    name = next((name for name in SCORES if answer.has(name)), SCORES[0])
    return _number(answer, name, answer.fields.get(name))


def _number(row: Row, name: str, value: Any) -> float:
    if value is None:
        raise LeftOut("no_score")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -LARGEST <= value <= LARGEST:  # neither does NaN lie between
        found = str(value)[:20] if number else kind_of(value)
        raise row.error(f"'{name}' holds {found}", "a finite number", "correct the row")
    return float(value)


def by_score(scores: list[float]) -> list[int]:
    """Ranks of scores: the highest is first, equal ones share a rank."""
    order = sorted(set(scores), reverse=True)
    return [order.index(score) + 1 for score in scores]


def _labels(row: Row) -> dict[str, list[int]]:
    labels = row.value("labels")
    if not isinstance(labels, dict) or not labels:
        found = f"'labels' is {'empty' if labels == {} else kind_of(labels)}"
        raise row.error(found, "an object {annotator: label}", "give every annotator's label")
    for name, label in labels.items():
        if not isinstance(label, str) or label not in LABELS:
            shown = repr(label) if isinstance(label, str) else kind_of(label)
            raise row.error(f"label of {name} is {shown}", f"one of {', '.join(LABELS)}", "correct the label")
        if not name.strip():
            raise row.error("'labels' has an annotator without a name", "a name", "name every annotator")
        writable(row.where, "labels", name)
    return {name: LABELS[label] for name, label in labels.items()}
