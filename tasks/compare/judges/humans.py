"""People as judges: a file of their verdicts, and a blind file of pairs for them to judge.

One JSON object a line::

    {"prompt_id": "p7", "response_a": "...", "response_b": "...", "verdict": "a", "annotator": "kim"}

``prompt`` may stand for ``prompt_id``; ``policy_a`` and ``policy_b`` (names as in metric names, ``sft`` for the
baseline) for the two responses. A verdict by texts holds for these texts, whichever policy wrote them; a verdict by
names holds for whatever these policies answer. ``verdict`` is a, b or tie, or null while nobody has judged the pair.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.compare.judges.agreement import Agreement, Labels, between_annotators
from tasks.engine.errors import DataError
from tasks.language.seeds import named_random
from tasks.records.json_lines import at, json_lines, text_problem
from tasks.results.judge import FIRST, SECOND, TIE, OrderEffects, Pair, PairVerdicts, position_bias
from tasks.results.verdict import percent
from tasks.results.win_rate import Resampling

_MEANING = {"a": FIRST, "tie": TIE, "b": SECOND}


class HumanVerdict(BaseModel):
    """One person's verdict on one pair; ``a`` is what was shown first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair_id: str = ""
    """Of pairs_for_humans.jsonl; not read."""
    prompt_id: str | None = None
    prompt: str | None = None
    response_a: str | None = None
    response_b: str | None = None
    policy_a: str | None = None
    policy_b: str | None = None
    verdict: Literal["a", "b", "tie"] | None
    annotator: str | None = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> "HumanVerdict":
        if self.prompt_id is None and self.prompt is None:
            raise ValueError("neither 'prompt_id' nor 'prompt' is given; say which prompt was judged")
        texts, names = (self.response_a, self.response_b), (self.policy_a, self.policy_b)
        if None in texts and None in names:
            raise ValueError("give 'response_a' and 'response_b', or 'policy_a' and 'policy_b'")
        if self.verdict is not None and self.annotator is None:
            raise ValueError("'verdict' is given and 'annotator' is null; say who judged")
        return self


class _Choice(NamedTuple):
    annotator: str
    for_policy: int
    """1 the policy's response is better, 0 a tie, -1 its opponent's."""
    as_shown: int
    """FIRST, TIE or SECOND."""


class HumanJudge:
    """Looks pairs up in people's verdicts; several people's are averaged, and each person counts once a pair.

    Raises:
        DataError: the file cannot be read, a line is wrong, or nobody has judged anything.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._verdicts = [row for row in read_verdicts(path) if row.verdict is not None]
        if not self._verdicts:
            raise DataError(f"{path}: every verdict is null; fill in a, b or tie before the file can judge")
        self._rows: dict[tuple[str, str], list[HumanVerdict]] = defaultdict(list)
        for row in self._verdicts:
            key = ("id", row.prompt_id) if row.prompt_id is not None else ("text", str(row.prompt))
            self._rows[key].append(row)
        self._matched: set[int] = set()

    @property
    def lines(self) -> int:
        """Verdicts in the file."""
        return len(self._verdicts)

    @property
    def unmatched(self) -> int:
        """Verdicts that belong to no pair judged so far: other prompts, or responses that have changed since."""
        return len(self._verdicts) - len(self._matched)

    def check(self) -> None:
        """Its file was read when it was made."""

    def spent(self) -> dict[str, float]:
        """Nothing that can be counted here."""
        return {}

    def notes(self, how: Resampling) -> list[str]:
        """How far the file covers the comparison, and whether people agree."""
        between = self.agreement(how.named("people"))
        agreed = (
            f" Where several judged the same pair, {percent(between.exact.estimate)} of {between.comparisons} comparisons agree."
            if between.exact is not None
            else ""
        )
        return [
            f"People: {self.lines} verdicts in the file, {self.unmatched} of them on responses that are not in this "
            f"comparison.{agreed}"
        ]

    def judge(self, pairs: Sequence[Pair]) -> PairVerdicts:
        """Verdicts on the pairs that somebody has judged; the others stay without one."""
        outcomes, shown, inconsistent = np.full(len(pairs), np.nan), list[int](), 0
        for place, pair in enumerate(pairs):
            by_person: dict[str, list[_Choice]] = defaultdict(list)
            for found in self._find(pair):
                by_person[found.annotator].append(found)
                shown.append(found.as_shown)
            if by_person:
                means = [float(np.mean([found.for_policy for found in rows])) for rows in by_person.values()]
                outcomes[place] = 0.5 + float(np.mean(means)) / 2
            inconsistent += any({1, -1} <= {found.for_policy for found in rows} for rows in by_person.values())
        return PairVerdicts(
            outcomes,
            OrderEffects(
                pairs=len(pairs),
                identical=0,
                unjudged=int(np.isnan(outcomes).sum()),
                inconsistent=inconsistent,
                verdicts=len(shown),
                tied_verdicts=shown.count(TIE),
                position_bias=position_bias(np.array(shown, dtype=np.float64)),
            ),
        )

    def agreement(self, how: Resampling) -> Agreement:
        """Of the people with each other."""
        return between_annotators(self.labels(), how)

    def labels(self) -> list[Labels]:
        """By pair of responses: what each person said, in one direction; for the agreement between people."""
        items: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
        for row in self._verdicts:
            left, right = _sides(row)
            said = _MEANING[str(row.verdict)] * (1 if left <= right else -1)
            items[(str(row.prompt_id), str(row.prompt), *sorted((left, right)))][str(row.annotator)] = said
        return list(items.values())

    def _find(self, pair: Pair) -> list[_Choice]:
        found = []
        for row in (*self._rows.get(("id", pair.prompt_id), ()), *self._rows.get(("text", pair.prompt), ())):
            texts = (row.response_a, row.response_b)
            shown, mine = (
                (texts, (pair.response, pair.opponent))
                if None not in texts
                else (
                    (row.policy_a, row.policy_b),
                    pair.names,
                )
            )
            if shown in (mine, mine[::-1]):
                said = _MEANING[str(row.verdict)]
                self._matched.add(id(row))
                found.append(_Choice(str(row.annotator), said if shown == mine else -said, said))
        return found


def _sides(row: HumanVerdict) -> tuple[str, str]:
    if row.response_a is not None and row.response_b is not None:
        return row.response_a, row.response_b
    return str(row.policy_a), str(row.policy_b)


def read_verdicts(path: Path) -> list[HumanVerdict]:
    """Every line of a file of verdicts.

    Raises:
        DataError: no file, or a line that is no verdict, with its number.
    """
    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"evaluation.judges.human_verdicts: cannot read {path} (no such file); give a JSONL file")
    rows = []
    for place, row in json_lines(path, str(path)):
        for name, value in row.items() if isinstance(row, dict) else ():
            if isinstance(value, str) and (found := text_problem(value)) is not None:
                raise DataError(f"{place}: '{name}' {found}, expected text that UTF-8 can write; correct the line")
        with at(place):
            rows.append(HumanVerdict.model_validate(row))
    return rows


def pairs_for_humans(pairs: Sequence[Pair], count: int, seed: int) -> list[HumanVerdict]:
    """At most ``count`` pairs of different responses, drawn by ``seed``, in random order of pairs and of responses.

    Nothing tells which policy wrote which response: the id is a digest of the texts.
    """
    rng = named_random(seed, "pairs for humans")
    different = list(
        dict.fromkeys((p.prompt_id, p.prompt, p.response, p.opponent) for p in pairs if p.response != p.opponent)
    )
    drawn = rng.sample(different, min(count, len(different)))
    found = []
    for prompt_id, prompt, response, opponent in drawn:
        a, b = (response, opponent) if rng.random() < 0.5 else (opponent, response)
        digest = hashlib.sha256("\x00".join((prompt_id, prompt, a, b)).encode()).hexdigest()[:12]
        found.append(
            HumanVerdict(
                pair_id=digest,
                prompt_id=prompt_id,
                prompt=prompt,
                response_a=a,
                response_b=b,
                verdict=None,
                annotator=None,
            )
        )
    return found


def write_pairs(path: Path, rows: Sequence[HumanVerdict]) -> None:
    """One object a line, without the fields that such a file does not need."""
    lines = [row.model_dump_json(exclude={"policy_a", "policy_b"}) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
