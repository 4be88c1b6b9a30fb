"""An artifact store whose results are shared at an address; its folder is where they are made, and a cache of what others made.

Checkpoints, locks, drafts and notes of runs stay in the folder. A result lies there first and is shared then; what could not be
shared has a note in ``unshared/`` and is shared by the next run. A result of others is downloaded when it is first opened.
"""

import logging
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.engine.artifacts import ArtifactRef, ArtifactStore, Draft, Manifest, replace_folder
from tasks.engine.digests import MANIFEST, differences, digest_if_changed, file_digest
from tasks.engine.errors import ArtifactError
from tasks.engine.remote import Remote, StoreAway

logger = logging.getLogger("plumbline")


def store_at(root: Path | str, address: str | None, look_only: bool = False) -> ArtifactStore:
    """The store in a folder, shared at an address if there is one, which is read through the folder; ``look_only`` as
    ``ArtifactStore`` has it, where there is no address."""
    return SharedStore(root, address) if address else ArtifactStore(root, look_only)


class SharedStore(ArtifactStore):
    """Artifacts below one root folder, and at an address.

    Raises:
        ArtifactError: the root cannot be created or written.
        StoreAway: of methods that need what the folder does not have; ``sound`` and ``publish`` warn instead.
    """

    def __init__(self, root: Path | str, address: str) -> None:
        super().__init__(root)
        self.remote = Remote(address)
        self.place = f"{address} (cache: {self.root})"
        self._listed: dict[tuple[str, str], Manifest | None] = {}

    def reach(self) -> None:
        """Refuse an address that cannot be reached or written."""
        self.remote.reach()

    def manifest(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest in the folder, or else the shared one."""
        here = super().manifest(stage, fingerprint) or self._listed.get((stage, fingerprint))
        return here or self.remote.manifest(stage, fingerprint)

    def find(self, stage: str, fingerprint: str) -> ArtifactRef | None:
        """A reference when folder or address have every file at its size."""
        return super().find(stage, fingerprint) or self._shared(stage, fingerprint)

    def _shared(self, stage: str, fingerprint: str) -> ArtifactRef | None:
        there = self.remote.manifest(stage, fingerprint)
        return self.remote.whole(there) if there is not None else None

    def damage(self, stage: str, fingerprint: str, digest: Callable[[Path], str] = file_digest) -> str | None:
        """What is wrong with the copy in the folder, unless the address can replace it."""
        problem = super().damage(stage, fingerprint, digest)
        return None if problem is None or self._shared(stage, fingerprint) is not None else problem

    def audit(self, stage: str, fingerprint: str) -> Iterator[str]:
        """Everything that is wrong with the copy in the folder, and with the shared files, which are read there."""
        if self.folder(stage, fingerprint).is_dir():
            yield from super().audit(stage, fingerprint)
        there = self.remote.manifest(stage, fingerprint)
        yield from self.remote.damages(there) if there is not None else ()

    def sound(self, stage: str, fingerprint: str) -> ArtifactRef | None:
        """As in a folder; a result that is only here is shared, and an address that does not answer counts as empty."""
        try:
            found = super().sound(stage, fingerprint)
        except StoreAway as away:
            logger.warning("artifact %s/%s: %s; until then it is made here", stage, fingerprint, away)
            return None
        if found is not None and super().find(stage, fingerprint) is not None:
            self._share(stage, fingerprint)
        return found

    def artifacts(self) -> list[tuple[str, str]]:
        """Stage and fingerprint of everything in the folder and at the address."""
        self._listed = self.remote.manifests()
        return sorted({*self.copies(), *self._listed})

    def made_at(self, stage: str, fingerprint: str) -> float:
        """When it was published here, or else when it was shared."""
        here = (self.folder(stage, fingerprint) / MANIFEST).is_file()
        return super().made_at(stage, fingerprint) if here else self.remote.made_at(stage, fingerprint)

    def open(self, ref: ArtifactRef) -> Path:
        """The folder of an artifact, downloaded if the copy in it is missing or damaged.

        Raises:
            ArtifactError: a shared file differs from what was published; nobody finds the result any more.
        """
        self._refuse_strangers(ref.stage, ref.fingerprint)
        if not self._is_here(ref):
            self._fetch(ref)
        return super().open(ref)

    def _is_here(self, ref: ArtifactRef) -> bool:
        if ref.digest in self._verified and self.folder(ref.stage, ref.fingerprint).is_dir():
            return True
        here = super().manifest(ref.stage, ref.fingerprint)
        whole = here is not None and super().damage(ref.stage, ref.fingerprint, digest_if_changed) is None
        return whole and here is not None and here.digest == ref.digest

    def _fetch(self, ref: ArtifactRef) -> None:
        stage, fingerprint = ref.stage, ref.fingerprint
        with self.lock(f"fetch.{stage}", fingerprint):
            manifest = self.remote.manifest(stage, fingerprint)
            if manifest is None or manifest.digest != ref.digest or self._is_here(ref):
                return
            problem: str | None = None
            for _ in range(2):  # a line may fail once without a trace; a damaged file is damaged again
                for abandoned in (self.root / "drafts").glob(f"fetch.{stage}-{fingerprint}-*"):
                    shutil.rmtree(abandoned)
                draft = self.root / "drafts" / f"fetch.{stage}-{fingerprint}-{uuid.uuid4().hex[:8]}"
                draft.mkdir()
                self.remote.fetch(manifest, draft)
                problem = next(differences(draft, manifest.files, file_digest), None)
                if problem is None:
                    (draft / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
                    replace_folder(draft, self.folder(stage, fingerprint))
                    return
            shutil.rmtree(draft)
        self.remote.withdraw(stage, fingerprint)
        raise ArtifactError(
            f"artifact {ref.key} in {self.remote.address}: {problem}; run the same command again to rebuild that stage"
        )

    @contextmanager
    def publish(
        self, stage: str, fingerprint: str, parents: Mapping[str, ArtifactRef], depends_on: Mapping[str, Any]
    ) -> Iterator[Draft]:
        """As in a folder, then shared; where another writer was first, ``draft.ref`` is that one's result."""
        self._note(stage, fingerprint).touch()  # before the result is there, so that a kill in between loses nothing
        with super().publish(stage, fingerprint, parents, depends_on) as draft:
            yield draft
        assert draft.ref is not None
        shared = self._share(stage, fingerprint)
        if shared is not None and shared != draft.ref:
            logger.warning("artifact %s: another run shared one with other bytes first, which is used", draft.ref.key)
            shutil.rmtree(self.folder(stage, fingerprint))
            draft.ref = shared

    def _note(self, stage: str, fingerprint: str) -> Path:
        return self.root / "unshared" / f"{stage}-{fingerprint}"

    def _share(self, stage: str, fingerprint: str) -> ArtifactRef | None:
        """Share the copy in the folder unless that has been done; returns what counts, None when nothing could be shared."""
        note, here = self._note(stage, fingerprint), super().manifest(stage, fingerprint)
        if here is None or super().damage(stage, fingerprint, digest_if_changed) is not None:
            note.unlink(missing_ok=True)
            return None
        try:
            there = None if note.exists() else self._shared(stage, fingerprint)
            there = there or self.remote.send(self.folder(stage, fingerprint), here)
        except StoreAway as away:
            note.touch()
            logger.warning(
                "artifact %s/%s is kept in %s and shared by the next run: %s", stage, fingerprint, self.root, away
            )
            return None
        note.unlink(missing_ok=True)
        return there

    def deliver(self) -> str:
        """Share what earlier runs could not; returns in words what is left."""
        for note in sorted((self.root / "unshared").iterdir()):
            stage, _, fingerprint = note.name.rpartition("-")
            with suppress(TimeoutError), self.lock(stage, fingerprint, patience=0):  # else it is being made
                if self._share(stage, fingerprint) is None and note.exists():
                    break
        if left := len(list((self.root / "unshared").iterdir())):
            return (
                f"{left} results in {self.root} are not yet shared at {self.remote.address}; the next run shares them"
            )
        return ""
