"""The artifact store: folders addressed by what they depend on, verified by what they contain.

``<root>/<stage>/<fingerprint>/`` holds the files of one stage result and a ``manifest.json`` with the SHA-256 of each file
and the digests of the parents. A folder appears there by one rename after everything in it is on disk, so a reader sees
all of it or nothing. ``<root>/checkpoints/<stage>/<fingerprint>/`` holds what a killed stage needs to go on,
``drafts/`` what is being written, ``locks/`` one lock per artifact, ``runs/`` notes between a run and its stages, and
``unshared/`` names of results that a shared store does not have yet.
"""

import json
import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.engine.digests import (
    MANIFEST,
    content_digest,
    differences,
    digest_if_changed,
    file_digest,
    folder_digests,
    strangers,
)
from tasks.engine.errors import ArtifactError
from tasks.engine.locks import Locks
from tasks.engine.os_errors import probe, readable_os_errors

NOT_STAGES = ("checkpoints", "drafts", "locks", "runs", "unshared")
"""Folders of the root that hold no artifacts."""
logger = logging.getLogger("plumbline")


class ArtifactRef(BaseModel):
    """A small, serialisable name for one stage result; this is what tasks pass to each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    fingerprint: str
    """What the result depends on: config, inputs, source."""
    digest: str
    """What the result is: SHA-256 over the names and digests of its files."""

    @property
    def key(self) -> str:
        """Path below the store's root."""
        return f"{self.stage}/{self.fingerprint}"


class Manifest(BaseModel):
    """What the store knows about one artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    fingerprint: str
    digest: str
    files: dict[str, str]
    """Relative path -> SHA-256."""
    sizes: dict[str, int]
    """Relative path -> bytes."""
    parents: dict[str, str]
    """Input name -> digest of that input."""
    depends_on: dict[str, Any]
    """The parts of the fingerprint, for people."""
    metrics: dict[str, float]
    """Final metrics of the stage; not part of the digest."""
    run_id: str
    """MLflow run that made it; empty when made without tracking."""


class Draft:
    """An artifact being written; it becomes visible when its ``with`` block ends well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: dict[str, float] = {}
        self.run_id = ""
        self.ref: ArtifactRef | None = None


class ArtifactStore(Locks):
    """Artifacts below one root folder.

    Args:
        root: the folder.
        look_only: make no folder, and do not ask whether one could be made: for questions about what is there.

    Raises:
        ArtifactError: the root cannot be created or written.
    """

    def __init__(self, root: Path | str, look_only: bool = False) -> None:
        self.root = Path(root).resolve()
        self.place = str(self.root)
        """For people."""
        self._verified: set[str] = set()
        if look_only:
            return
        probe(self.root, 0)
        with readable_os_errors(self.root):
            for name in NOT_STAGES:
                (self.root / name).mkdir(exist_ok=True)

    def folder(self, stage: str, fingerprint: str) -> Path:
        """Where an artifact lies or would lie."""
        return self.root / stage / fingerprint

    def manifest(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest of an artifact, or None when there is none that can be read."""
        path = self.folder(stage, fingerprint) / MANIFEST
        try:
            return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def find(self, stage: str, fingerprint: str) -> ArtifactRef | None:
        """A reference when the artifact is there with every file at its size; digests are checked by ``open``."""
        manifest = self.manifest(stage, fingerprint)
        if manifest is None:
            return None
        folder = self.folder(stage, fingerprint)
        for name, size in manifest.sizes.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                return None
        return ArtifactRef(stage=stage, fingerprint=fingerprint, digest=manifest.digest)

    def sound(self, stage: str, fingerprint: str) -> ArtifactRef | None:
        """A reference when every file has its digest; what is damaged is named in the log and counts as absent.

        A file is read again only if its size or its time of change differ from when this process last read it.

        Raises:
            ArtifactError: there is a file that was not published with it.
        """
        self._refuse_strangers(stage, fingerprint)
        found = self.find(stage, fingerprint)
        problem = self.damage(stage, fingerprint, digest_if_changed)
        if problem is None or not (self.folder(stage, fingerprint) / MANIFEST).exists():
            return found
        logger.warning("artifact %s/%s: %s; it is made again", stage, fingerprint, problem)
        return None

    def artifacts(self) -> list[tuple[str, str]]:
        """Stage and fingerprint of everything that lies where artifacts lie, damaged or not."""
        return self.copies()

    def copies(self) -> list[tuple[str, str]]:
        """Stage and fingerprint of everything that lies in the folder."""
        there = self.root.iterdir() if self.root.is_dir() else ()
        stages = [path for path in there if path.is_dir() and path.name not in NOT_STAGES]
        return sorted((path.name, folder.name) for path in stages for folder in path.iterdir() if folder.is_dir())

    def made_at(self, stage: str, fingerprint: str) -> float:
        """When an artifact was published, in seconds since 1970."""
        return (self.folder(stage, fingerprint) / MANIFEST).stat().st_mtime

    def open(self, ref: ArtifactRef) -> Path:
        """The folder of an artifact, after every file was compared with its digest; a process reads a file once.

        Raises:
            ArtifactError: a file is missing, differs from what was published, or was not published with it.
        """
        folder = self.folder(ref.stage, ref.fingerprint)
        self._refuse_strangers(ref.stage, ref.fingerprint)
        if ref.digest in self._verified and folder.is_dir():
            return folder
        problem = self.damage(ref.stage, ref.fingerprint, digest_if_changed)
        manifest = self.manifest(ref.stage, ref.fingerprint)
        if problem is None and manifest is not None and manifest.digest != ref.digest:
            problem = f"it holds digest {manifest.digest[:12]}, expected {ref.digest[:12]}"
        if problem is not None:
            # Whoever holds the lock is building it again: then the manifest is theirs.
            with suppress(TimeoutError), self.lock(ref.stage, ref.fingerprint, patience=0):
                if self.damage(ref.stage, ref.fingerprint) is not None:
                    # Without a manifest ``find`` no longer knows it, so that the next run builds it again.
                    (folder / MANIFEST).unlink(missing_ok=True)
            raise ArtifactError(
                f"artifact {ref.key} in {self.root}: {problem}; run the same command again to rebuild that stage"
            )
        self._verified.add(ref.digest)
        return folder

    def damage(self, stage: str, fingerprint: str, digest: Callable[[Path], str] = file_digest) -> str | None:
        """The first thing that is wrong with an artifact, in words, or None when every digest agrees."""
        return next(iter(self.damages(stage, fingerprint, digest)), None)

    def damages(self, stage: str, fingerprint: str, digest: Callable[[Path], str] = file_digest) -> Iterator[str]:
        """Everything that is wrong with an artifact."""
        manifest = self.manifest(stage, fingerprint)
        if manifest is None:
            yield f"{MANIFEST} is missing or unreadable"
            return
        folder = self.folder(stage, fingerprint)
        yield from differences(folder, manifest.files, digest)
        if content_digest(stage, manifest.files) != manifest.digest:
            yield f"{MANIFEST} contradicts itself"
        for name in strangers(folder, manifest.files):
            yield f"file {name} was not published with it"

    def audit(self, stage: str, fingerprint: str) -> Iterator[str]:
        """Everything that is wrong with an artifact, wherever it lies."""
        return self.damages(stage, fingerprint)

    def reach(self) -> None:
        """Nothing: a folder that could be opened is there."""

    def deliver(self) -> str:
        """Nothing is waiting to be shared."""
        return ""

    def _refuse_strangers(self, stage: str, fingerprint: str) -> None:
        """What was published is whole, so that nothing need be made again; and the file may be somebody's only copy.

        Raises:
            ArtifactError: there is a file that was not published with the artifact.
        """
        folder, manifest = self.folder(stage, fingerprint), self.manifest(stage, fingerprint)
        if manifest is not None and (names := strangers(folder, manifest.files)):
            raise ArtifactError(
                f"artifact {stage}/{fingerprint} in {self.root}: found {', '.join(names)}, which was not published with it "
                "and may change what it means; move it elsewhere and run the same command again"
            )

    def checkpoints(self, stage: str, fingerprint: str) -> Path:
        """Folder for the training state of a stage that is under way."""
        folder = self.root / "checkpoints" / stage / fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def forget_checkpoints(self, stage: str, fingerprint: str) -> None:
        """Remove the training state of a stage that has been published."""
        shutil.rmtree(self.root / "checkpoints" / stage / fingerprint, ignore_errors=True)

    @contextmanager
    def publish(
        self, stage: str, fingerprint: str, parents: Mapping[str, ArtifactRef], depends_on: Mapping[str, Any]
    ) -> Iterator[Draft]:
        """Write into ``draft.folder``; on a clean exit the folder becomes the artifact, otherwise nothing remains.

        Raises:
            ArtifactError: the disk is full or the store cannot be written.
        """
        folder = self.root / "drafts" / f"{stage}-{fingerprint}-{uuid.uuid4().hex[:8]}"
        target = self.folder(stage, fingerprint)
        with readable_os_errors(self.root):
            for abandoned in (self.root / "drafts").glob(f"{stage}-{fingerprint}-*"):
                shutil.rmtree(abandoned, ignore_errors=True)  # of a killed process: the stage's lock is ours
            folder.mkdir(parents=True)
            draft = Draft(folder)
            try:
                yield draft
                _open_to_readers(
                    folder
                )  # before the digests: whoever knows one knows it by the time of the last change
                files = folder_digests(folder)
                manifest = Manifest(
                    stage=stage,
                    fingerprint=fingerprint,
                    digest=content_digest(stage, files),
                    files=files,
                    sizes={name: (folder / name).stat().st_size for name in files},
                    parents={name: parent.digest for name, parent in sorted(parents.items())},
                    depends_on=dict(depends_on),
                    # JSON has no NaN; what could not be measured is left out.
                    metrics={name: value for name, value in draft.metrics.items() if math.isfinite(value)},
                    run_id=draft.run_id,
                )
                (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
                replace_folder(folder, target)
                draft.ref = ArtifactRef(stage=stage, fingerprint=fingerprint, digest=manifest.digest)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def replace_folder(draft: Path, target: Path) -> None:
    """Make a finished draft the artifact, in place of a damaged or half-deleted one; the caller holds its lock."""
    _flush(draft)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)


def _open_to_readers(folder: Path) -> None:
    """Weights are written for their owner alone; give them the mode that any other file here has, which follows the umask."""
    (folder / MANIFEST).touch()
    usual = (folder / MANIFEST).stat().st_mode
    for path in folder.rglob("*"):
        mode = path.stat().st_mode
        if path.is_file() and mode | usual != mode:
            path.chmod(mode | usual)


def _flush(folder: Path) -> None:
    """Force file contents to disk before the rename makes them visible."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """JSON with a fixed layout, so that equal values are equal bytes."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
