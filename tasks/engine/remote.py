"""Artifacts at an address that several machines share: ``s3://bucket/prefix``, or ``file:///mnt/shared``.

``<address>/<stage>/<fingerprint>/<start of the digest>/`` holds the files of one result, and ``manifest.json`` beside that folder
is written last, only if there is none yet: whoever sees a manifest sees every file, and of two writers the first one wins. Files
of different results never have the same name, so that the second writer spoils nothing. Credentials come from the environment.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from tasks.engine.artifacts import ArtifactRef, Manifest
from tasks.engine.digests import MANIFEST, content_digest
from tasks.engine.errors import ArtifactError
from tasks.engine.os_errors import OF_THE_DISK, refusal
from tasks.engine.urls import without_password

OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}}},
    "file": {"auto_mkdir": True},
    "memory": {},
}
"""What each kind of address is opened with."""
REMEDY = {
    "s3": "check the network, the bucket, and the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and "
    "AWS_ENDPOINT_URL for a server that is not Amazon's",
    "file": "check that it is mounted and may be written",
    "memory": "check the address",
}


class StoreAway(ArtifactError):
    """A shared store that cannot be reached just now."""


class Remote:
    """The shared side of a store; every method raises ``StoreAway`` where it cannot be reached."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.kind = address.partition("://")[0]

    def manifest(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest of an artifact, or None when there is none that can be read."""
        with self._opened() as (files, root):
            try:
                return _read(files.cat_file(f"{root}/{stage}/{fingerprint}/{MANIFEST}"))
            except FileNotFoundError:
                return None

    def manifests(self) -> dict[tuple[str, str], Manifest | None]:
        """Stage and fingerprint of everything that has a manifest, and the manifest, None for one that cannot be read."""
        with self._opened() as (files, root):
            paths = files.glob(f"{root}/*/*/{MANIFEST}")
            texts = files.cat(paths, on_error="omit") if paths else {}
            found = {tuple(path.split("/")[-3:-1]): _read(text) for path, text in texts.items()}
        return {(stage, fingerprint): manifest for (stage, fingerprint), manifest in found.items()}

    def whole(self, manifest: Manifest) -> ArtifactRef | None:
        """A reference when every file is there at its size."""
        with self._opened() as (files, root):
            folder = _folder(root, manifest)
            sizes = {path: facts["size"] for path, facts in files.find(folder, detail=True).items()}
        if any(sizes.get(f"{folder}/{name}") != size for name, size in manifest.sizes.items()):
            return None
        return ArtifactRef(stage=manifest.stage, fingerprint=manifest.fingerprint, digest=manifest.digest)

    def made_at(self, stage: str, fingerprint: str) -> float:
        """When an artifact was shared, in seconds since 1970."""
        with self._opened() as (files, root):
            return float(files.modified(f"{root}/{stage}/{fingerprint}/{MANIFEST}").timestamp())

    def send(self, folder: Path, manifest: Manifest) -> ArtifactRef:
        """Share a result; returns the one that counts, which is another writer's where that was first."""
        with self._opened() as (files, root):
            target = _folder(root, manifest)
            names = sorted(manifest.files)
            files.put([str(folder / name) for name in names], [f"{target}/{name}" for name in names])
            place, text = (
                f"{root}/{manifest.stage}/{manifest.fingerprint}/{MANIFEST}",
                manifest.model_dump_json(indent=1),
            )
            try:
                self._create(files, place, text.encode())
            except FileExistsError:
                there = self.manifest(manifest.stage, manifest.fingerprint)
                if there is not None and (first := self.whole(there)) is not None:
                    if first.digest != manifest.digest:
                        files.rm(target, recursive=True)
                    return first
                files.pipe_file(place, text.encode())  # of a result that has lost files
        return ArtifactRef(stage=manifest.stage, fingerprint=manifest.fingerprint, digest=manifest.digest)

    def fetch(self, manifest: Manifest, into: Path) -> None:
        """Bring the files of a result; those that are not there are left out."""
        names = sorted(manifest.files)
        with self._opened() as (files, root):
            source = _folder(root, manifest)
            there = set(files.find(source))
            names = [name for name in names if f"{source}/{name}" in there]
            for name in names:
                (into / name).parent.mkdir(parents=True, exist_ok=True)
            files.get([f"{source}/{name}" for name in names], [str(into / name) for name in names])

    def withdraw(self, stage: str, fingerprint: str) -> None:
        """Take the manifest away, so that nobody finds the result any more."""
        with self._opened() as (files, root):
            files.rm_file(f"{root}/{stage}/{fingerprint}/{MANIFEST}")

    def damages(self, manifest: Manifest) -> Iterator[str]:
        """Everything that is wrong with a shared result, after every file was read there."""
        with self._opened() as (files, root):
            for name, expected in manifest.files.items():
                try:
                    with files.open(f"{_folder(root, manifest)}/{name}", "rb") as stream:
                        found = hashlib.file_digest(stream, "sha256").hexdigest()
                except FileNotFoundError:
                    yield f"file {name} is missing in {self.address}"
                    continue
                if found != expected:
                    yield f"file {name} in {self.address} has digest {found[:12]}, expected {expected[:12]}"
        if content_digest(manifest.stage, manifest.files) != manifest.digest:
            yield f"{MANIFEST} in {self.address} contradicts itself"

    def reach(self) -> None:
        """Write a small file and take it away again."""
        with self._opened() as (files, root):
            place = f"{root}/.probe-{uuid.uuid4().hex}"
            try:
                files.pipe_file(place, b"plumbline")
                files.rm_file(place)
            except (
                FileNotFoundError
            ) as error:  # a bucket that does not exist; elsewhere it only means "no such artifact"
                raise self._away(error) from error

    def _create(self, files: Any, place: str, text: bytes) -> None:
        """Write a file if there is none, all of it at once.

        Raises:
            FileExistsError: there is one.
        """
        if self.kind != "file":
            try:
                files.pipe_file(place, text, mode="create")
            except OSError as error:  # servers name a condition that is not met in many ways
                if files.exists(place):
                    raise FileExistsError(place) from error
                raise
            return
        draft = Path(f"{place}.{uuid.uuid4().hex}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(text)
        try:
            os.link(draft, place)
        finally:
            draft.unlink()

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, str]]:
        """The file system, of this process and thread, and the path in it; what it cannot do becomes one sentence."""
        try:
            files, root = fsspec.core.url_to_fs(self.address, use_listings_cache=False, **OPTIONS[self.kind])
            yield files, root.rstrip("/")
        except (FileNotFoundError, FileExistsError, ArtifactError):
            raise
        except ImportError as error:
            raise ArtifactError(
                f"tracking.store: {self.address} needs a package that is not installed; run "
                f"`pip install -c constraints.txt -e .[{self.kind}]`"
            ) from error
        except Exception as error:
            if refusal(error) in OF_THE_DISK:
                raise
            raise self._away(error) from error

    def _away(self, error: Exception) -> StoreAway:
        first = without_password((str(error).strip().splitlines() or [""])[0][:200])
        return StoreAway(
            f"tracking.store: {self.address} cannot be used ({type(error).__name__}: {first}); {REMEDY[self.kind]}, or set "
            "tracking.store=null to keep results in tracking.root alone"
        )


def _folder(root: str, manifest: Manifest) -> str:
    return f"{root}/{manifest.stage}/{manifest.fingerprint}/{manifest.digest[:16]}"


def _read(text: bytes) -> Manifest | None:
    try:
        return Manifest.model_validate_json(text)
    except ValueError:
        return None
