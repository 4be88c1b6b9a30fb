"""From one JSON object to records; every objection names file, line, what was found and what was expected."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from tasks.data_prep.deduplicate import normalise
from tasks.data_prep.few_shot import Shot, expand_few_shot
from tasks.data_prep.split import short_digest
from tasks.engine.errors import DataError
from tasks.records.records import Comparison, Demonstration, Document, Prompt

Fields = Mapping[str, Any]
UNKNOWN_LABELER = "unknown"
LABELS = {"a": [1, 2], "a-slightly": [1, 2], "tie": [1, 1], "b-slightly": [2, 1], "b": [2, 1]}
"""Label of a pair -> ranks of its two completions."""


class Row:
    """One JSON object, where it stands, and the prompt layout."""

    def __init__(self, fields: Any, where: str, layout: str) -> None:
        self.where, self._layout = where, layout
        if not isinstance(fields, dict):
            raise DataError(f"{where}: found {_kind(fields)}, expected a JSON object; write one object per line")
        self.fields: Fields = fields

    @property
    def keys(self) -> str:
        """The fields that are there."""
        return ", ".join(sorted(self.fields)) or "none"

    def error(self, found: str, expected: str, remedy: str) -> DataError:
        """A sentence about this row."""
        return DataError(f"{self.where}: {found}, expected {expected}; {remedy}")

    def text(self, name: str, *, default: str | None = None) -> str:
        """A non-empty string field."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        if name not in self.fields:
            raise self.error(f"'{name}' is missing (found: {self.keys})", "a text", f"add '{name}' or exclude the file")
        if not isinstance(value, str):
            raise self.error(f"'{name}' is {_kind(value)}", "a text", "write it in quotes")
        if not value.strip():
            raise self.error(f"'{name}' is empty", "a text", "fill it in or remove the row")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings; single ones may be empty."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"'{name}' is {_kind(value)}", "a list of texts", "write it in brackets")
        return value

    def prompt(self, *, bare: bool = False) -> Prompt:
        """The row's prompt. Without an ``owner_id``, equal prompts share an owner of their own."""
        return self.as_prompt(self.text("prompt"), bare=bare)

    def as_prompt(self, raw: str, *, bare: bool = False, owner: str | None = None) -> Prompt:
        """A prompt of this row with the given raw text."""
        text = raw if bare else self._layout.replace("{prompt}", raw)
        owner = owner or self.text("owner_id", default=f"prompt:{short_digest(normalise(raw))}")
        kind = self.text("kind", default="unknown")
        return Prompt(prompt_id=short_digest(text), owner_id=owner, text=text, kind="" if kind == "unknown" else kind)

    def labeler(self) -> str:
        """Who wrote or judged it: ``labeler``, else ``author``, else unknown."""
        return self.text("labeler", default=self.text("author", default=UNKNOWN_LABELER))


def demonstrations_of(row: Row) -> list[Demonstration]:
    """{prompt, response}, or a few-shot row {instruction, shots: [{query, response}, ...]}."""
    if "shots" not in row.fields:
        return [Demonstration(prompt=row.prompt(), response=row.text("response"), labeler_id=row.labeler())]
    instruction = row.text("instruction")
    given = row.fields["shots"]
    if not isinstance(given, list) or not all(isinstance(shot, dict) for shot in given) or len(given) < 2:
        raise row.error(f"'shots' is {_kind(given)}", "a list of two or more {query, response}", "add examples")
    pairs = [Row(shot, f"{row.where}: shots[{place}]", "{prompt}") for place, shot in enumerate(given)]
    shots = [Shot(pair.text("query"), pair.text("response")) for pair in pairs]
    # Siblings share an owner, so that no split sees another split's answer among its examples.
    owner = row.text("owner_id", default=f"labeler:{row.labeler()}:{short_digest(normalise(instruction))}")
    return [
        Demonstration(
            prompt=row.as_prompt(example.query, owner=owner), response=example.response, labeler_id=row.labeler()
        )
        for example in expand_few_shot(instruction, shots)
    ]


def comparisons_of(row: Row) -> list[Comparison]:
    """One ranking, one pair, or one comparison per annotator."""
    prompt = row.prompt()
    if "completions" in row.fields:
        ranks = row.fields.get("ranks")
        if not isinstance(ranks, list) or not all(type(rank) is int for rank in ranks):
            raise row.error(
                f"'ranks' is {_kind(ranks)}", "a list of whole numbers, 1 for the best", "rank every completion"
            )
        return [_comparison(row, prompt, row.texts("completions"), ranks, row.labeler(), _models(row, "models"))]
    if "chosen" in row.fields or "rejected" in row.fields:
        pair = [_completion(row, "chosen"), _completion(row, "rejected")]
        return [_comparison(row, prompt, pair, [1, 2], row.labeler(), [])]
    if "completion_a" in row.fields:
        pair = [_completion(row, "completion_a"), _completion(row, "completion_b")]
        policies = [row.fields.get("model_a"), row.fields.get("model_b")]
        named = [str(name) for name in policies] if all(policies) else []
        return [_comparison(row, prompt, pair, ranks, name, named) for name, ranks in _labels(row).items()]
    raise row.error(
        f"no responses (found: {row.keys})",
        "'chosen' and 'rejected', 'completions' and 'ranks', or 'completion_a', 'completion_b' and 'labels'",
        "rename the fields or exclude the file",
    )


def prompts_of(row: Row) -> list[Prompt]:
    """{prompt}."""
    return [row.prompt()]


def bare_prompts_of(row: Row) -> list[Prompt]:
    """{prompt} without the layout."""
    return [row.prompt(bare=True)]


def documents_of(row: Row) -> list[Document]:
    """{text}."""
    return [Document(text=row.text("text"), source=row.text("source", default="unknown"))]


PARSERS: dict[str, Callable[[Row], list[Any]]] = {
    "demonstrations": demonstrations_of,
    "comparisons": comparisons_of,
    "rl_prompts": prompts_of,
    "documents": documents_of,
    "test_prompts": prompts_of,
    "toxicity_prompts": bare_prompts_of,
}
"""Role -> how a row of it is read; benchmarks have a module of their own."""


def _completion(row: Row, name: str) -> str:
    value = row.fields.get(name)
    if not isinstance(value, str):
        raise row.error(f"'{name}' is {_kind(value)}", "a text", f"add '{name}' or exclude the file")
    return value


def _models(row: Row, name: str) -> list[str]:
    return row.texts(name) if row.fields.get(name) is not None else []


def _labels(row: Row) -> dict[str, list[int]]:
    labels = row.fields.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise row.error(f"'labels' is {_kind(labels)}", "an object {annotator: label}", "give every annotator's label")
    for name, label in labels.items():
        if label not in LABELS:
            raise row.error(f"label of {name} is {label!r}", f"one of {', '.join(LABELS)}", "correct the label")
    return {name: LABELS[label] for name, label in labels.items()}


def _comparison(
    row: Row, prompt: Prompt, completions: list[str], ranks: list[int], labeler: str, policies: list[str]
) -> Comparison:
    try:
        return Comparison(
            prompt=prompt, completions=completions, ranks=ranks, labeler_id=labeler, source_policy=policies
        )
    except ValidationError as error:
        raise DataError(f"{row.where}: {problem(error)}") from None


def problem(error: ValidationError) -> str:
    """The first thing pydantic objects to, as a sentence."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in first["loc"])
    return f"'{place}': {message}" if place else message


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return f"{names.get(type(value), type(value).__name__)}" + (f" of {len(value)}" if isinstance(value, list) else "")
