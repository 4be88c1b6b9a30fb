"""One row of a file and its fields; every objection names file, line, what was found and what was expected."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tasks.data_prep.deduplicate import normalise
from tasks.data_prep.sources.messages import printed_messages, said_in, spelled_messages, turns_in
from tasks.data_prep.sources.records import LeftOut
from tasks.data_prep.sources.values import kind_of, writable, wrong
from tasks.data_prep.split import short_digest
from tasks.engine.errors import DataError, ModelError
from tasks.language.chat_layout import Turn
from tasks.language.plain_layout import BARE, Layout
from tasks.records.json_lines import Twice, escaped, parse_json, text_problem
from tasks.records.records import TURNS, Prompt

Fields = Mapping[str, Any]
UNKNOWN_LABELER = "unknown"


class Row:
    """One object, where it stands, and the layout of its prompts.

    Args:
        fields: name -> value.
        where: file and line.
        layout: what the model sees of a prompt.
        table: whether it was a row of a table, whose columns have types and whose cells may spell lists as JSON.
    """

    def __init__(self, fields: Any, where: str, layout: Layout = BARE, *, table: bool = False) -> None:
        self.where, self.layout, self.table = where, layout, table
        if not isinstance(fields, dict):
            raise wrong(where, f"found {kind_of(fields)}", "a JSON object", "write one object per line")
        self.fields: Fields = fields
        self.turns: dict[int, tuple[Turn, ...]] = {}
        """``id`` of each prompt that was made of this row -> what it was before the layout."""

    @property
    def keys(self) -> str:
        """The fields that are there."""
        return escaped(", ".join(sorted(map(str, self.fields)))) or "none"

    def error(self, found: str, expected: str, remedy: str) -> DataError:
        """A sentence about this row."""
        return wrong(self.where, found, expected, remedy)

    def has(self, *names: str) -> bool:
        """Whether all these fields hold something."""
        return all(self.fields.get(name) is not None for name in names)

    def value(self, name: str) -> Any:
        """A field as it is; in a table, a cell that spells a list or an object is one."""
        value = self.fields.get(name)
        if self.table and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            with suppress(DataError):
                return parse_json(value.encode("utf-8", "surrogatepass"), self.where)
        return value

    def messages(self, name: str) -> list[Any] | None:
        """A list of chat messages, or a text that spells one as JSON; None when the field holds something else."""
        value = self.fields.get(name)
        if isinstance(value, str):
            if printed_messages(value):
                found = f"'{name}' is a list of messages as Python prints it"
                raise self.error(
                    found, "JSON", "write it with json.dumps instead of str, and a table of them with to_json"
                )
            return spelled_messages(value)
        if not isinstance(value, list) or (self.table and not all(isinstance(item, dict) for item in value)):
            return None
        return value

    def text(self, name: str, *, default: str | None = None) -> str:
        """A non-empty text."""
        if default is not None and not self.has(name):
            return default
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise self._no_text(name, value)
        if not value.strip():
            raise self.error(f"'{name}' is empty", "a text", "fill it in or remove the row")
        return writable(self.where, name, value)

    def label(self, name: str) -> str | None:
        """A field that describes the row and that no result depends on: its text, None where it is something else."""
        value = self.fields.get(name)
        fine = isinstance(value, str) and value.strip() and text_problem(value) is None
        return str(value) if fine else None

    def said(self, name: str) -> str:
        """One answer: a text, which may be empty, or a list of one assistant message."""
        messages, value = self.messages(name), self.fields.get(name)
        if messages is not None:
            return said_in(messages, self.where, name)
        if not isinstance(value, str):
            raise self._no_text(name, value)
        return writable(self.where, name, value)

    def asked(self, name: str) -> list[Turn]:
        """One request: a text, or a list of messages."""
        messages = self.messages(name)
        return [Turn("user", self.text(name))] if messages is None else turns_in(messages, self.where, name)

    def texts(self, name: str) -> list[str]:
        """A list of texts; single ones may be empty."""
        value = self.value(name)
        if not isinstance(value, list):
            raise self.error(f"'{name}' is {kind_of(value)}", "a list of texts", "write it in brackets")
        for place, item in enumerate(value):
            if not isinstance(item, str):
                raise self._no_text(f"{name}[{place}]", item)
            writable(self.where, f"{name}[{place}]", item)
        return value

    def prompt(self, turns: Sequence[Turn], *, owner: str | None = None) -> Prompt:
        """The prompt that the layout makes of these turns. Without an ``owner_id``, equal requests share an owner."""
        try:
            text = self.layout.prompt(turns)
        except ModelError:  # a chat template that was tried, and that does not take these turns
            raise LeftOut("refused_by_layout") from None
        first = next((turn.content for turn in turns if turn.role == "user"), turns[0].content)
        owner = owner or self.text("owner_id", default=f"prompt:{short_digest(normalise(first))}")
        kind = self.label("kind") or ""
        kind = "" if kind == "unknown" else kind
        before = {} if text == first and len(turns) == 1 else {TURNS: [list(turn) for turn in turns]}
        prompt = Prompt(prompt_id=short_digest(text), owner_id=owner, text=text, kind=kind, metadata=before)
        self.turns[id(prompt)] = tuple(turns)
        return prompt

    def labeler(self) -> str:
        """Who wrote or judged it: ``labeler``, else ``annotator`` (a name or a number), else ``author``, else unknown."""
        number = self.fields.get("annotator")
        annotator = str(number) if type(number) is int else self.label("annotator")
        return self.text("labeler", default=annotator or self.label("author") or UNKNOWN_LABELER)

    def _no_text(self, name: str, value: Any) -> DataError:
        if value is None and name not in self.fields:
            found = f"'{name}' is missing (found: {self.keys})"
            return self.error(found, "a text", f"add '{name}' or exclude the file")
        remedy = "write it as one text"
        if value is None:
            remedy = "fill it in or remove the row"
        elif isinstance(value, Twice):
            remedy = "keep one of them"
        elif isinstance(value, int | float):
            remedy = "make the column one of text" if self.table else "write it in quotes"
        empty = value is None and self.table
        return self.error(f"'{name}' is {'empty' if empty else kind_of(value)}", "a text", remedy)
