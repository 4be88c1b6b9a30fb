"""Datasets of the Hugging Face hub, or whatever else ``datasets.load_dataset`` reads, as a source."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.data_prep.config import OPTIONAL, HubRole, MinimumRows, Role
from tasks.data_prep.sources.benchmark_rows import item_of, shape_of
from tasks.data_prep.sources.folder import BARE_ROLES
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.sources.rows import Row
from tasks.engine.errors import DataError
from tasks.language.plain_layout import BARE, Layout
from tasks.records.json_lines import at


def hub_rows(
    hub: Mapping[Role, HubRole], minimum: MinimumRows, layout: Layout, into: SourceRecords
) -> Iterator[tuple[str, Iterator[Row]]]:
    """(role, rows) of every dataset, its columns renamed to the fields of the JSONL formats; benchmarks go into ``into``.

    Raises:
        DataError: a required role without a dataset, a dataset that cannot be loaded, or a row that cannot be used.
    """
    for role, rows in minimum.model_dump().items():
        # Test prompts may also come from the owners that test_fraction sets aside.
        if rows > 0 and role not in hub and role != "test_prompts":
            raise DataError(
                f"data_prep.hub: found no dataset for {role}, expected one because minimum_rows.{role} is {rows}; add "
                f"data_prep.hub.{role}{f' or set data_prep.minimum_rows.{role}=0' if role == OPTIONAL else ''}"
            )
    for role, wanted in hub.items():
        rows = _rows(role, wanted, BARE if role == "toxicity_prompts" else layout)
        if role != "benchmarks":
            yield role, rows
            continue
        for row in rows:
            shape = shape_of(row)
            if shape is None:
                raise row.error(f"found fields {row.keys}", "a known benchmark format", "map the columns")
            with at(row.where):
                item = item_of(row, shape, wanted.name.rsplit("/", 1)[-1], len(into.benchmarks))
            into.benchmarks += [item] if item else []


def count_hub_rows(hub: Mapping[Role, HubRole]) -> int:
    """As many rows as the datasets hold; those of one that cannot be loaded do not count: whoever reads them says why."""
    total = 0
    for role, wanted in hub.items():
        with suppress(DataError):
            total += len(_load(role, wanted)) if role not in BARE_ROLES else 0
    return total


def _rows(role: str, wanted: HubRole, layout: Layout) -> Iterator[Row]:
    name = Path(wanted.name).name if Path(wanted.name).expanduser().is_dir() else wanted.name
    for number, fields in enumerate(_load(role, wanted)):
        yield Row(rename(fields, wanted, role), f"{name} ({wanted.split}) row {number}", layout, table=True)


def rename(fields: Mapping[str, Any], wanted: HubRole, role: str) -> dict[str, Any]:
    """The mapped columns under their new names; those that the mapping does not mention are left out. An empty mapping
    takes all columns as they are.

    Raises:
        DataError: the dataset has no such column.
    """
    if not wanted.fields:
        return dict(fields)
    renamed = {}
    for name, path in wanted.fields.items():
        value: Any = fields
        for part in path.split("."):
            if value is None:  # an empty cell: whoever reads the field objects
                break
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise DataError(
                    f"{wanted.name} ({wanted.split}): found no column {path} (columns: "
                    f"{', '.join(sorted(fields))}), expected one "
                    f"for '{name}'; correct data_prep.hub.{role}.fields.{name}"
                ) from None
        renamed[name] = value
    return renamed


def _load(role: str, wanted: HubRole) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(wanted.name, wanted.config, split=wanted.split, revision=wanted.revision)
    except Exception as error:  # the hub client raises whatever its transport raises
        raise DataError(
            f"data_prep.hub.{role}: {wanted.name} could not be loaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}), "
            "expected a dataset on the hub and a network (HF_HUB_OFFLINE unset), or a local folder; check "
            "name, config, split and revision"
        ) from error
