"""Data preparation, the story: read, clean, split, measure, write, and check what was written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.data_prep.audit import check_no_leaks
from tasks.data_prep.clean import PROMPT_ROLES, Cleaner, Table
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.ends import take_off_ends
from tasks.data_prep.enough import require_documents, require_enough
from tasks.data_prep.layouts import layout_of, notice_of_template
from tasks.data_prep.lengths import Limits, Ruler, responses_of
from tasks.data_prep.sources.folder import read_folder
from tasks.data_prep.sources.hub import read_hub
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.sources.sandbox import read_sandbox
from tasks.data_prep.split import AnySplit, prompt_of
from tasks.data_prep.tokenizer import EOS, adopt_tokenizer, train_tokenizer
from tasks.engine.config import ModelConfig
from tasks.language.plain_layout import Layout
from tasks.records.data import PreparedRecords, write_prepared_data
from tasks.records.records import Document

UNKNOWN_SHARE_WORTH_A_NOTICE = 0.01


def prepare(
    config: DataPrepConfig, model: ModelConfig, folder: Path, documents_for: Sequence[str] = ()
) -> dict[str, float]:
    """Fill ``folder`` with the data artifact; returns the numbers of rows kept and dropped.

    Args:
        config: what to read and how to clean it.
        model: its tokenizer is adopted or trained.
        folder: of the artifact.
        documents_for: knobs of later stages that need pretraining documents.

    Raises:
        DataError: a file, a row or a split that cannot be used, with its place and remedy.
        ModelError: the base model's tokenizer cannot be used.
    """
    # 1. Read.
    adopted = adopt_tokenizer(model)
    source = read_source(config, layout_of(config.prompt_layout, adopted))
    source.notices += notice_of_template(config.prompt_layout, adopted)
    take_off_ends(source, str(adopted.eos_token) if adopted else EOS)
    # 2. Clean and split.
    cleaner = Cleaner(config, source)
    table = cleaner.clean()
    documents = cleaner.split_documents()
    cleaner.count_left_out()
    require_enough(config, table, documents, cleaner.rows)
    # 3. The tokenizer sees training text only.
    tokenizer = adopted or train_tokenizer(model, training_text(table, documents["train"]))
    # 4. Drop what the model cannot read.
    ruler = Ruler(tokenizer, Limits(config.prompt_tokens, config.response_tokens))
    drop_misfits(table, documents, cleaner, ruler)
    require_enough(config, table, documents, cleaner.rows)
    require_documents(documents, cleaner.rows, documents_for)
    # 5. Write.
    write_prepared_data(folder, _prepared(source, table, documents), tokenizer)
    if source.world is not None:
        source.world.write(folder)
    # 6. Check what was written.
    compared = check_no_leaks(folder)
    notices = list(source.notices)
    if ruler.unknown_share > UNKNOWN_SHARE_WORTH_A_NOTICE:
        notices.append(
            f"tokenizer: {ruler.unknown_share:.1%} of the tokens are unknown words; raise "
            "model.tokenizer.vocab_size or use bpe"
        )
    audit = {
        "source": config.source,
        "rows": [row.to_json() for row in cleaner.rows.values()],
        "benchmarks": _by_task(source),
        "toxicity_prompts": len(source.toxicity_prompts),
        "pii_rules": dict(sorted(cleaner.pii.items())),
        "tokenizer": {"entries": len(tokenizer), "unknown_share": round(ruler.unknown_share, 6)},
        "leak_check": compared,
        "notices": notices,
    }
    (folder / "audit.json").write_text(json.dumps(audit, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return _metrics(audit)


def read_source(config: DataPrepConfig, layout: Layout) -> SourceRecords:
    """Records of the configured source, their prompts laid out."""
    if config.source == "sandbox":
        assert config.sandbox is not None
        return read_sandbox(config.sandbox, config.seed)
    if config.source == "folder":
        assert config.folder is not None and config.files is not None
        return read_folder(config.folder, config.files, config.minimum_rows, layout)
    assert config.hub is not None
    return read_hub(config.hub, config.minimum_rows, layout)


def training_text(table: Table, documents: list[Document]) -> Iterator[str]:
    """Everything that stages will train on."""
    for document in documents:
        yield document.text
    for role in PROMPT_ROLES:
        for record in table[role, "train"]:
            yield prompt_of(record).text
            yield from responses_of(record)


def drop_misfits(table: Table, documents: Mapping[AnySplit, list[Document]], cleaner: Cleaner, ruler: Ruler) -> None:
    """Leave out what the model cannot read, in place, and take the numbers of what stays."""
    for (role, split), records in table.items():
        row, kept, lengths = cleaner.rows[role, split], [], []
        for record in records:
            measured, origin = ruler.measure(record), cleaner.origin(record)
            objection = ruler.objection(record, measured, origin.turns)
            if objection:
                row.drop(objection, origin.where)
            else:
                kept.append(record)
                lengths.append(measured)
        table[role, split] = kept
        row.count_kept([prompt_of(record) for record in kept], lengths)
    for split, texts in documents.items():
        row, fine = cleaner.rows["documents", split], []
        for document in texts:
            if ruler.spells_special_token(document.text):
                row.drop("special_token", cleaner.origin(document).where)
            else:
                fine.append(document)
        row.kept = len(fine)
        texts[:] = fine


def _prepared(source: SourceRecords, table: Table, documents: Mapping[AnySplit, list[Document]]) -> PreparedRecords:
    def split(role: str) -> dict[Any, Any]:
        return {"train": table[role, "train"], "valid": table[role, "valid"]}

    test: list[Any] = table["test_prompts", "test"]
    return PreparedRecords(
        demonstrations=split("demonstrations"),
        comparison_prompts=split("comparison_prompts"),
        comparisons=split("comparisons"),
        rl_prompts=split("rl_prompts"),
        documents={"train": documents["train"], "valid": documents["valid"]},
        test_prompts=test,
        benchmarks=source.benchmarks,
        toxicity_prompts=source.toxicity_prompts,
    )


def _by_task(source: SourceRecords) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in source.benchmarks:
        counts[item.task] = counts.get(item.task, 0) + 1
    return counts


def _metrics(audit: dict[str, Any]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for row in audit["rows"]:
        metrics[f"{row['role']}/{row['split']}"] = float(row["kept"])
        for rule, count in row["dropped"].items():
            metrics[f"dropped/{rule}"] = metrics.get(f"dropped/{rule}", 0.0) + count
    metrics["benchmarks/test"] = float(sum(audit["benchmarks"].values()))
    metrics["toxicity_prompts/test"] = float(audit["toxicity_prompts"])
    metrics["tokenizer/entries"] = float(audit["tokenizer"]["entries"])
    return metrics
