"""Cleaning and splitting, in the order of InstructGPT appendix A.2: personal data, duplicates, cap per owner.

The split is known first, because it depends on the owner alone; it decides which rows the rules see. Test is
cleaned before validation and validation before training, so that of two duplicates the held-out one stays.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from tasks.data_prep.audit import AuditRow
from tasks.data_prep.cap import within_cap
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.deduplicate import PrefixIndex, normalise
from tasks.data_prep.lengths import responses_of
from tasks.data_prep.pii import pii_rules
from tasks.data_prep.rules import MOVED
from tasks.data_prep.sources.records import ReadFrom, SourceRecords
from tasks.data_prep.sources.rows import UNKNOWN_LABELER
from tasks.data_prep.split import ANY_SPLITS, AnySplit, Shares, prompt_of, split_owners
from tasks.records.rankings import compares_with_itself, dense_ranks
from tasks.records.records import Comparison, Demonstration, Document, Prompt

PROMPT_ROLES = ("rl_prompts", "comparisons", "comparison_prompts", "demonstrations")
"""Roles with prompts, in the order in which their test owners' prompts follow the explicit test prompts."""

WithPrompt = Prompt | Demonstration | Comparison
Table = dict[tuple[str, AnySplit], list[WithPrompt]]


class Cleaner:
    """Cleans the roles of one source; ``rows`` and ``pii`` tell what was dropped."""

    def __init__(self, config: DataPrepConfig, source: SourceRecords) -> None:
        self._config, self._source = config, source
        self.rows: dict[tuple[str, str], AuditRow] = {}
        self.pii: Counter[str] = Counter()
        self._held_out = self._index()

    def clean(self) -> Table:
        """(role, split) -> the rows that stay, in the order in which they were read."""
        table = self._assign(self._source)
        for role in PROMPT_ROLES:
            # No stage tunes on a test owner's rows; their prompts are good for testing.
            moved = [prompt_of(record) for record in table.pop((role, "test"))]
            self.rows[role, "test"].drop(MOVED, "", len(moved))
            table["test_prompts", "test"] += moved
            self.rows["test_prompts", "test"].read += len(moved)
        for split in ANY_SPLITS:
            roles = [role for role, where in table if where == split]
            for role in roles:
                table[role, split] = self._clean_rows(role, split, table[role, split])
            if split != "train":
                for role in roles:
                    for record in table[role, split]:
                        self._held_out.add(self._asked(record))
        return table

    def split_documents(self) -> dict[AnySplit, list[Document]]:
        """Pretraining texts by hash of the text: repetitions stay together, and nothing is dropped."""
        documents = self._source.documents
        found: dict[AnySplit, list[Document]] = {"train": [], "valid": []}
        shares = Shares(valid=self._config.validation_fraction, test=0.0)
        splits = split_owners({"documents": [document.text for document in documents]}, shares, self._config.seed)
        for document in documents:
            found[splits[document.text]].append(document)
        for split, rows in found.items():
            self.rows["documents", split] = AuditRow("documents", split, read=len(rows), kept=len(rows))
        return found

    def count_left_out(self) -> None:
        """Count the rows that no record was made of among those of training, or of test for test prompts."""
        for role, rules in self._source.left_out.items():
            if role == "toxicity_prompts":  # shown as they are, and neither split nor cleaned
                self._source.notices += [f"{role}: {count} rows left out by {rule}" for rule, count in rules.items()]
                continue
            row = self.rows[role, "test" if role == "test_prompts" else "train"]
            for rule, count in rules.items():
                row.read += count
                row.drop(rule, self._source.first_left_out[role, rule], count)

    def origin(self, record: WithPrompt | Document) -> ReadFrom:
        """Where a record was read."""
        return self._source.origin(record)

    def _asked(self, record: WithPrompt) -> str:
        """What a prompt is compared by: its turns before the layout, whose words all prompts share; a system message last."""
        turns = self.origin(record).turns
        ordered = sorted(turns, key=lambda turn: turn.role == "system")
        return "\n".join(turn.content for turn in ordered) or prompt_of(record).text

    def _assign(self, source: SourceRecords) -> Table:
        table: Table = {("test_prompts", "test"): list(source.test_prompts)}
        self.rows["test_prompts", "test"] = AuditRow("test_prompts", "test", read=len(source.test_prompts))
        test_owners = {prompt.owner_id for prompt in source.test_prompts}
        owners = {role: [prompt_of(record).owner_id for record in getattr(source, role)] for role in PROMPT_ROLES}
        splits = split_owners(owners, Shares.of(self._config), self._config.seed, test_owners)
        for role in PROMPT_ROLES:
            for split in ANY_SPLITS:
                table[role, split] = []
            for record in getattr(source, role):
                table[role, splits[prompt_of(record).owner_id]].append(record)
            for split in ANY_SPLITS:
                self.rows[role, split] = AuditRow(role, split, read=len(table[role, split]))
        return table

    def _clean_rows(self, role: str, split: AnySplit, records: list[WithPrompt]) -> list[WithPrompt]:
        row = self.rows[role, split]
        if split == "train" and self._config.drop_pii:
            records = [record for record in records if not self._has_pii(record, row)]
        records = self._unique([record for record in records if not self._says_nothing(record, row)], row)
        prompts = [prompt_of(record) for record in records]
        stays = within_cap(prompts, self._config.max_prompts_per_owner, self._config.seed)
        for record in (record for record, stay in zip(records, stays, strict=True) if not stay):
            row.drop("owner_cap", self.origin(record).where)
        return [record for record, stay in zip(records, stays, strict=True) if stay]

    def _has_pii(self, record: WithPrompt, row: AuditRow) -> bool:
        rules = pii_rules([prompt_of(record).text, *responses_of(record)])
        self.pii.update(rules)
        if rules:
            row.drop("pii", self.origin(record).where)
        return bool(rules)

    def _says_nothing(self, record: WithPrompt, row: AuditRow) -> bool:
        """A ranking that puts a text before itself: no model can learn it, and every model would be wrong about it."""
        if isinstance(record, Comparison) and compares_with_itself(record):
            row.drop("same_response", self.origin(record).where)
            return True
        return False

    def _unique(self, records: list[WithPrompt], row: AuditRow) -> list[WithPrompt]:
        """One prompt is one row, except for rankings: several labelers may rank several sets of responses to it.

        Where unnamed rankings of the same responses contradict each other, they are votes of several people: all stay.
        """
        index = self._index()
        kept: list[WithPrompt] = []
        seen: set[tuple[object, ...]] = set()
        kept_prompts: set[str] = set()
        votes = _contested([record for record in records if isinstance(record, Comparison)])
        for record in records:
            text = self._asked(record)
            same: tuple[object, ...] = (normalise(text),)
            seen_prompt = vote = False
            if isinstance(record, Comparison):
                same += (record.labeler_id, _order(record))
                seen_prompt = normalise(text) in kept_prompts
                vote = _ballot(record) in votes
            if text in self._held_out:
                row.drop("in_held_out_split", self.origin(record).where)
            elif same in seen and not vote:
                row.drop("duplicate", self.origin(record).where)
            elif seen_prompt or index.add(text):
                seen.add(same)
                kept_prompts.add(normalise(text))
                kept.append(record)
            else:
                row.drop("duplicate_prefix", self.origin(record).where)
        return kept

    def _index(self) -> PrefixIndex:
        return PrefixIndex(self._config.duplicate_prefix_words, self._config.duplicate_prefix_fraction)


def _order(comparison: Comparison) -> tuple[tuple[int, str], ...]:
    """What a ranking says, in whatever order it lists the responses."""
    return tuple(sorted(zip(dense_ranks(comparison.ranks), comparison.completions, strict=True)))


def _ballot(comparison: Comparison) -> tuple[str, ...]:
    """What unnamed people voted on: the prompt and the responses."""
    named = comparison.labeler_id != UNKNOWN_LABELER
    return () if named else (normalise(comparison.prompt.text), *sorted(comparison.completions))


def _contested(comparisons: Sequence[Comparison]) -> set[tuple[str, ...]]:
    """Ballots on which unnamed rankings differ."""
    orders = defaultdict(set)
    for comparison in comparisons:
        orders[_ballot(comparison)].add(_order(comparison))
    return {ballot for ballot, found in orders.items() if ballot and len(found) > 1}
