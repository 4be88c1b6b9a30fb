"""The artifact store from the outside: `python -m flows.store list|verify|gc`.

`gc` keeps what a run in MLflow or a registered model refers to, with everything that it was made from, and the training state
of unfinished stages. It shows what it would delete; `--delete` does it.
"""

import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flows.process import environment  # noqa: F401  first: sets where everything lies

from flows.config import load  # isort: skip
from flows.parser import Parser
from flows.tools.references import References
from tasks.engine.artifacts import ArtifactStore
from tasks.engine.errors import ArtifactError, PlumblineError

DRAFT = re.compile(r"(.+)-([0-9a-f]{20})\b")
REFERENCES_SHOWN = 3


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def readable(size: float) -> str:
    """``1.5 MB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def show(headings: list[str], rows: list[list[str]]) -> None:
    """Columns that line up; the last one, which may be long, is left to the terminal."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in [headings, *rows]:
        cells = [
            cell.rjust(width) if heading == "size" else cell.ljust(width)
            for heading, cell, width in zip(headings, row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())


def show_list(store: ArtifactStore, references: References) -> None:
    """Every artifact: stage, fingerprint, size, when and by which MLflow run it was made, who refers to it."""
    named = references.by_artifact()
    rows, total = [], 0
    for stage, fingerprint in store.artifacts():
        folder, manifest = store.folder(stage, fingerprint), store.manifest(stage, fingerprint)
        size = size_of(folder) if folder.is_dir() else sum(manifest.sizes.values()) if manifest else 0
        total += size
        names = named.get(f"{stage}/{fingerprint}", [])
        more = [f"and {len(names) - REFERENCES_SHOWN} more"] if len(names) > REFERENCES_SHOWN else []
        made = "damaged" if manifest is None else _clock(store.made_at(stage, fingerprint))
        by = manifest.run_id[:8] if manifest and manifest.run_id else "-"
        rows.append(
            [stage, fingerprint, readable(size), made, by, ", ".join([*names[:REFERENCES_SHOWN], *more]) or "-"]
        )
    show(["stage", "fingerprint", "size", "made", "MLflow run", "referenced by"], rows)
    print(f"{len(rows)} artifacts, {readable(total)}, in {store.place}")


def verify(store: ArtifactStore) -> int:
    """Read every file of every artifact and compare digests; returns the number of files that are damaged or missing."""
    bad, artifacts = 0, store.artifacts()
    for stage, fingerprint in artifacts:
        for problem in store.audit(stage, fingerprint):
            bad += 1
            print(f"{stage}/{fingerprint}: {problem}")
    if bad:
        print(f"damaged or missing: {bad}; the next run that needs them makes them again")
    else:
        print(f"{len(artifacts)} artifacts, every digest agrees")
    return bad


@dataclass(frozen=True)
class Garbage:
    """One folder or file that nothing refers to."""

    path: Path
    what: str
    size: int
    stage: str
    fingerprint: str
    """Empty for what belongs to no stage."""


def with_parents(store: ArtifactStore, keys: Iterable[str]) -> set[str]:
    """Artifacts, and transitively everything that they were made from; both as ``stage/fingerprint``."""
    manifests = {
        f"{stage}/{fingerprint}": manifest
        for stage, fingerprint in store.artifacts()
        if (manifest := store.manifest(stage, fingerprint)) is not None
    }
    with_digest: dict[str, set[str]] = {}
    for key, manifest in manifests.items():
        with_digest.setdefault(manifest.digest, set()).add(key)
    kept: set[str] = set()
    pending = set(keys)
    while pending:
        key = pending.pop()
        if key not in kept:
            kept.add(key)
            parents = manifests[key].parents.values() if key in manifests else []
            pending.update(*(with_digest.get(digest, set()) for digest in parents))
    return kept


def garbage(store: ArtifactStore, kept: set[str]) -> list[Garbage]:
    """What can go: artifacts not kept, training state of stages that are finished, and what killed processes left."""
    found = []
    present = set()
    for stage, fingerprint in store.copies():
        if store.manifest(stage, fingerprint) is not None:
            present.add((stage, fingerprint))
            if f"{stage}/{fingerprint}" in kept:
                continue
            what = "artifact"
        else:
            what = "artifact without a manifest"
        folder = store.folder(stage, fingerprint)
        found.append(Garbage(folder, what, size_of(folder), stage, fingerprint))
    for folder in sorted((store.root / "checkpoints").glob("*/*")):
        key = (folder.parent.name, folder.name)
        if key in present:
            found.append(Garbage(folder, "training state of a finished stage", size_of(folder), *key))
    for folder in sorted((store.root / "drafts").iterdir()):
        if named := DRAFT.match(folder.name):
            found.append(Garbage(folder, "draft of a killed stage", size_of(folder), named[1], named[2]))
    for folder in sorted((store.root / "runs").iterdir()):
        found.append(Garbage(folder, "notes of a killed run", size_of(folder), "", ""))
    return found


def collect(store: ArtifactStore, references: References, keep: list[str], delete: bool) -> None:
    """Show what nothing refers to, or delete it.

    Args:
        store: where.
        references: what MLflow refers to.
        keep: names or ids of the runs to keep the artifacts of; empty keeps those of all runs.
        delete: do it.

    Raises:
        ArtifactError: the store is in use, or MLflow knows no artifact of it.
        ConfigError: a run to keep does not exist.
    """
    with ExitStack() as stack:
        if delete:
            stack.enter_context(store.for_myself())
            # Asked again now that no run is under way: one may have ended since, and it refers to what it made.
            references = References(references.uri, store.root)
        of_models = set().union(*references.by_model().values())
        runs = references.chosen(keep) if keep else list(references.runs)
        kept = with_parents(store, references.of_runs(runs) | of_models)
        present = {f"{stage}/{fingerprint}" for stage, fingerprint in store.copies()}
        if present and not present & kept:
            raise ArtifactError(
                f"artifact store {store.root}: no {'named' if keep else ''} run in MLflow at {references.uri} refers to "
                "anything in it, so that everything would go; if that is meant, remove the folder, else check "
                "tracking.mlflow_uri"
            )
        found = garbage(store, kept)
        show(
            ["path", "what", "size"],
            [[item.path.relative_to(store.root).as_posix(), item.what, readable(item.size)] for item in found],
        )
        total = readable(sum(item.size for item in found))
        if not delete:
            print(f"{len(found)} folders, {total}, could go; nothing was deleted: --delete does it")
            return
        gone = [item for item in found if _delete(store, item)]
        print(f"{len(gone)} folders, {readable(sum(item.size for item in gone))}, deleted")


def _delete(store: ArtifactStore, item: Garbage) -> bool:
    """Remove one folder under its stage's lock; False when somebody holds that."""
    with ExitStack() as stack:
        if item.fingerprint:
            try:
                stack.enter_context(store.lock(item.stage, item.fingerprint, patience=0))
            except TimeoutError:
                print(f"{item.path}: in use, kept")
                return False
        # By a rename first: whoever looks meanwhile sees all of it or nothing.
        doomed = store.root / "drafts" / f".gone-{item.path.parent.name}-{item.path.name}"
        item.path.rename(doomed)
        shutil.rmtree(doomed)
    return True


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def main() -> None:
    """Command line."""
    parser = Parser(prog="python -m flows.store", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "list": "every artifact, its size, when it was made, by which MLflow run, and who refers to it",
        "verify": "read everything and compare digests; exit status 1 if anything is damaged or missing",
        "gc": "show what no run and no registered model refers to",
    }
    for name, words in helps.items():
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("overrides", nargs="*", help="the run's overrides, if they changed tracking.*")
        if name == "gc":
            command.add_argument("--delete", action="store_true", help="delete it; without this, it is only shown")
            command.add_argument(
                "--keep-run",
                action="append",
                default=[],
                metavar="ID|NAME",
                help="keep only what this run used (may be given several times); default: all runs in MLflow",
            )
    given = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    try:
        tracking = load(given.overrides).tracking
        if tracking.store is None and not tracking.artifacts.is_dir():
            raise ArtifactError(
                f"{tracking.artifacts}: no such folder, expected a store; give the run's tracking.root=..."
            )
        store = tracking.open_store()
        if given.command == "verify":
            sys.exit(1 if verify(store) else 0)
        references = References(tracking.uri, store.root)
        if given.command == "list":
            show_list(store, references)
        else:
            collect(store, references, given.keep_run, given.delete)
    except PlumblineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
