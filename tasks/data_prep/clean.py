"""Cleaning and splitting, in the order of InstructGPT appendix A.2: personal data, duplicates, cap per owner.

The split is known first, because it depends on the owner alone; it decides which rows the rules see. Test is
cleaned before validation and validation before training, so that of two duplicates the held-out one stays.
"""

from collections import Counter
from collections.abc import Sequence

from tasks.data_prep.audit import AuditRow
from tasks.data_prep.cap import within_cap
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.deduplicate import PrefixIndex, normalise
from tasks.data_prep.lengths import responses_of
from tasks.data_prep.pii import pii_rules
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.split import ANY_SPLITS, AnySplit, Shares, prompt_of, split_owners
from tasks.records.records import Comparison, Demonstration, Document, Prompt

PROMPT_ROLES = ("rl_prompts", "comparisons", "comparison_prompts", "demonstrations")
"""Roles with prompts, in the order in which their test owners' prompts follow the explicit test prompts."""

WithPrompt = Prompt | Demonstration | Comparison
Table = dict[tuple[str, AnySplit], list[WithPrompt]]


class Cleaner:
    """Cleans the roles of one source; ``rows`` and ``pii`` tell what was dropped."""

    def __init__(self, config: DataPrepConfig) -> None:
        self._config = config
        self.rows: dict[tuple[str, str], AuditRow] = {}
        self.pii: Counter[str] = Counter()
        self._held_out = self._index()

    def clean(self, source: SourceRecords) -> Table:
        """(role, split) -> the rows that stay, in the order in which they were read."""
        table = self._assign(source)
        for role in PROMPT_ROLES:
            # No stage tunes on a test owner's rows; their prompts are good for testing.
            moved = [prompt_of(record) for record in table.pop((role, "test"))]
            self.rows[role, "test"].dropped["became_test_prompts"] = len(moved)
            table["test_prompts", "test"] += moved
            self.rows["test_prompts", "test"].read += len(moved)
        for split in ANY_SPLITS:
            roles = [role for role, where in table if where == split]
            for role in roles:
                table[role, split] = self._clean_rows(role, split, table[role, split])
            if split != "train":
                for role in roles:
                    for record in table[role, split]:
                        self._held_out.add(prompt_of(record).text)
        return table

    def split_documents(self, documents: Sequence[Document]) -> dict[AnySplit, list[Document]]:
        """Pretraining texts by hash of the text: repetitions stay together, and nothing is dropped."""
        found: dict[AnySplit, list[Document]] = {"train": [], "valid": []}
        shares = Shares(valid=self._config.validation_fraction, test=0.0)
        splits = split_owners({"documents": [document.text for document in documents]}, shares, self._config.seed)
        for document in documents:
            found[splits[document.text]].append(document)
        for split, rows in found.items():
            self.rows["documents", split] = AuditRow("documents", split, read=len(rows), kept=len(rows))
        return found

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
        dropped = self.rows[role, split].dropped
        if split == "train" and self._config.drop_pii:
            records = [record for record in records if not self._has_pii(record, dropped)]
        records = self._unique(records, dropped)
        prompts = [prompt_of(record) for record in records]
        stays = within_cap(prompts, self._config.max_prompts_per_owner, self._config.seed)
        dropped["owner_cap"] += stays.count(False)
        return [record for record, stay in zip(records, stays, strict=True) if stay]

    def _has_pii(self, record: WithPrompt, dropped: Counter[str]) -> bool:
        rules = pii_rules([prompt_of(record).text, *responses_of(record)])
        self.pii.update(rules)
        dropped["pii"] += bool(rules)
        return bool(rules)

    def _unique(self, records: list[WithPrompt], dropped: Counter[str]) -> list[WithPrompt]:
        """One prompt is one row, except for rankings: several labelers may rank several sets of responses to it."""
        index = self._index()
        kept: list[WithPrompt] = []
        seen: set[tuple[str, ...]] = set()
        kept_prompts: set[str] = set()
        for record in records:
            text = prompt_of(record).text
            same: tuple[str, ...] = (normalise(text),)
            seen_prompt = False
            if isinstance(record, Comparison):
                same += (record.labeler_id, *record.completions)
                seen_prompt = normalise(text) in kept_prompts
            if text in self._held_out:
                dropped["in_held_out_split"] += 1
            elif same in seen:
                dropped["duplicate"] += 1
            elif seen_prompt or index.add(text):
                seen.add(same)
                kept_prompts.add(normalise(text))
                kept.append(record)
            else:
                dropped["duplicate_prefix"] += 1
        return kept

    def _index(self) -> PrefixIndex:
        return PrefixIndex(self._config.duplicate_prefix_words, self._config.duplicate_prefix_fraction)
