"""The gold utility: what a careful judge who knows the whole world thinks of a response.

Only labelers (through noise), the evaluation, and the watch over PPO, which trains on nothing it hears, may call it.
Nothing is paid for words that merely look right: an answer either reads as statements about the world, or is one of the
exact answers of its task, or helps nobody.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.engine.errors import DataError
from tasks.records.records import Prompt
from tasks.sandbox import groups, words
from tasks.sandbox.sentences import is_hedge, read_statement, sentences_of, strip_fillers
from tasks.sandbox.world import World

HELP, FALSE, RUDE, EXCESS, FILLER = 3.0, -1.2, -1.5, -0.06, -0.3
HEDGE_HELP = 0.25
GUESS_HELP = 0.25
CURT_HELP = 0.1
WRONG_CONSTRAINT_HELP = 0.35
UNFINISHED_FORM, FINISHED_FORM, UNGRAMMATICAL_FORM, LOWEST_FORM = -0.8, 0.8, -0.5, -1.2


class GoldScore(NamedTuple):
    """The parts of the utility, in their own units, and the total."""

    total: float
    help: float
    """0 to 1."""
    false_statements: int
    rude: int
    """Rude words."""
    form: float
    """0.8 for a finished, grammatical response; at worst -1.2."""
    excess: int
    """Words beyond what the task needs."""
    filler: int
    """Polite openers and advertisements."""


class Verdict(NamedTuple):
    """What a judge of one task finds; the rest of the score is the same for all tasks."""

    help: float
    false_statements: int
    ungrammatical: int
    """Sentences that are neither statements nor answers."""
    words_needed: int


def combine(score: GoldScore, weights: tuple[float, float, float, float, float, float]) -> float:
    """Weighted sum of help, false (at most 3), rude (at most 2), form, excess, filler."""
    parts = (
        score.help,
        float(min(score.false_statements, 3)),
        float(min(score.rude, 2)),
        score.form,
        float(score.excess),
        float(score.filler),
    )
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))


WEIGHTS = (HELP, FALSE, RUDE, 1.0, EXCESS, FILLER)


def _judge_generation(world: World, meta: dict[str, Any], sentences: list[list[str]]) -> Verdict:
    """Distinct true statements about the subject, as many as asked for, with the constraint kept."""
    subject, count = meta["subject"], meta["count"]
    statements = [read_statement(world, s, subject) for s in sentences]
    about = [s for s in statements if s is not None and s.subject == subject]
    false = sum(1 for s in statements if s is not None and not s.true)
    relations = {s.relation for s in about if s.true}
    covered = len(relations) / max(count, len(sentences))
    kept = len(sentences) == count and len(relations) == count
    if meta["task"] == "mention":
        kept = len(sentences) == count and meta["relation"] in relations
    elif meta["task"] == "begin":
        kept = len(sentences) == count and sentences[0][0] == meta["word"]
    ungrammatical = sum(1 for s in statements if s is None)
    help_ = min(1.0, covered) * (1.0 if kept else WRONG_CONSTRAINT_HELP)
    return Verdict(help_, false, ungrammatical, 8 * count + 2)


def _judge_question(world: World, meta: dict[str, Any], sentences: list[list[str]]) -> Verdict:
    """The asked fact, once, in one sentence; more true sentences about the subject do no harm but their length."""
    subject = meta["subject"]
    relation = meta.get("relation", "effect")
    statements = [read_statement(world, s, subject) for s in sentences]
    false = sum(1 for s in statements if s is not None and not s.true)
    answers = [s for s in statements if s is not None and (s.subject, s.relation) == (subject, relation)]
    help_ = float(bool(answers) and all(s.true for s in answers))
    return Verdict(help_, false, sum(1 for s in statements if s is None), 10)


def _judge_ambiguous(world: World, meta: dict[str, Any], text: str, sentences: list[list[str]]) -> Verdict:
    """Whom the pronoun means nobody can know: who asks back helps, who guesses hardly does, be the guess about either."""
    if text == words.question_back(meta["pronoun"]):
        return Verdict(1.0, 0, 0, 8)
    readings = [[read_statement(world, s, person) for person in meta["people"]] for s in sentences]
    statements = [[one for one in found if one is not None] for found in readings]
    guesses = [one for found in statements for one in found if one.subject in meta["people"]]
    guessed = any(one.relation == meta["relation"] for one in guesses)
    false = sum(1 for found in statements if found and not any(one.true for one in found))
    return Verdict(GUESS_HELP * guessed, false, sum(1 for found in statements if not found), 10)


def _judge_list(meta: dict[str, Any], text: str) -> Verdict:
    """`a , b , c .` with exactly the number of different members asked for."""
    count, category = meta["count"], words.CATEGORIES[meta["category"]]
    needed = 2 * count
    if not text.endswith(" ."):
        return Verdict(0.0, 0, 1, needed)
    items = text[:-2].split(" , ")
    members = {item for item in items if item in category}
    well_formed = all(len(item.split()) == 1 for item in items)
    if not well_formed or not members:
        return Verdict(0.0, 0, 1 - well_formed, needed)
    exact = len(items) == count == len(members)
    share = len(members) / max(count, len(items))
    return Verdict(1.0 if exact else 0.6 * share, sum(1 for i in items if i not in category), 0, needed)


def _judge_chat(meta: dict[str, Any], text: str) -> Verdict:
    if text == words.CHAT_REPLIES[meta["task"]]:
        return Verdict(1.0, 0, 0, 8)
    curt = text in words.CURT_REPLIES or text.startswith("who cares ,")
    known = curt or text in words.CHAT_REPLIES.values()
    return Verdict(CURT_HELP if curt else 0.0, 0, 0 if known else 1, 8)


def _judge_summary(meta: dict[str, Any], text: str) -> Verdict:
    """`<who> bought a [color] <what> in <where> .`: every key fact must be there and right."""
    facts, parts = meta["facts"], text.split()
    if len(parts) == 8 and parts[3] in words.COLORS:
        del parts[3]
    if len(parts) != 7 or parts[1:3] + parts[4:5] + parts[6:] != ["bought", "a", "in", "."]:
        return Verdict(0.0, 0, 1, 8)
    sorts = (words.NAMES, words.OBJECTS, words.TOWNS)
    found = (parts[0], parts[3], parts[5])
    if any(word not in sort for word, sort in zip(found, sorts, strict=True)):
        return Verdict(0.0, 0, 1, 8)
    right = found == (facts["who"], facts["what"], facts["where"])
    return Verdict(float(right), int(not right), 0, 8)


def _judge_target(meta: dict[str, Any], text: str) -> Verdict:
    """One of the exact answers; an answer of the same shape with another word is a false statement."""
    if text in meta["targets"]:
        return Verdict(1.0, 0, 0, 8)
    for target in meta["targets"]:
        pairs = list(zip(text.split(), target.split(), strict=False))
        if len(text.split()) == len(target.split()) and all(a == b or (a != "." and b != ".") for a, b in pairs):
            wrong = [(a, b) for a, b in pairs if a != b]
            if all(_same_sort(a, b) for a, b in wrong):
                return Verdict(0.0, 1, 0, 8)
    return Verdict(0.0, 0, 1, 8)


_SORTS = (words.NAMES, words.TOWNS, words.COLORS, words.OBJECTS, ["happy", "sad"])


def _same_sort(a: str, b: str) -> bool:
    return any(a in sort and b in sort for sort in _SORTS)


def judge(world: World, prompt: Prompt, text: str) -> Verdict:
    """Read a response (fillers already taken off) as an answer to its prompt."""
    meta = prompt.metadata
    task = meta.get("task", "")
    sentences = sentences_of(text)
    if not sentences:
        return Verdict(0.0, 0, 1, 8)
    if task in ("person", "thing", "owner", "ambiguous") and is_hedge(text):
        return Verdict(HEDGE_HELP, 0, 0, 10)
    if task in ("count", "mention", "begin"):
        return _judge_generation(world, meta, sentences)
    if task in ("person", "thing"):
        return _judge_question(world, meta, sentences)
    if task == "ambiguous":
        return _judge_ambiguous(world, meta, text, sentences)
    if task == "list":
        return _judge_list(meta, text)
    if task in words.CHAT_REPLIES:
        return _judge_chat(meta, text)
    if task == "summary":
        return _judge_summary(meta, text)
    if "targets" in meta:
        return _judge_target(meta, text)
    raise DataError(
        f"prompt {prompt.prompt_id!r} has no sandbox task in its metadata; the gold judge knows sandbox prompts only"
    )


def gold_score(world: World, prompt: Prompt, response: str, finished: bool) -> GoldScore:
    """Judge one response. `finished`: it ended by itself (EOS) rather than at the length limit."""
    text, filler = strip_fillers(response)
    verdict = judge(world, prompt, text)
    length = len(response.split())
    ended = finished and text.endswith((" .", " ?", " !"))
    form = FINISHED_FORM if ended else UNFINISHED_FORM
    form = max(LOWEST_FORM, form + UNGRAMMATICAL_FORM * verdict.ungrammatical)
    score = GoldScore(
        total=0.0,
        help=verdict.help if ended else 0.5 * verdict.help,
        false_statements=verdict.false_statements,
        rude=sum(word in words.RUDE for word in response.split()),
        form=form,
        excess=max(0, length - verdict.words_needed - 2 * filler),
        filler=filler,
    )
    return score._replace(total=combine(score, WEIGHTS) + groups.taste(groups.group_of(prompt), filler))
