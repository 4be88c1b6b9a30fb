"""Who may label: names, and of each one's token only the SHA-256."""

import hashlib
import hmac
import json
import os
import secrets
import uuid
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from tasks.engine.errors import ConfigError, DataError
from tasks.engine.os_errors import readable_os_errors
from tasks.records.labels import FOLDER, Name

FILE = "labelers.json"
DIGESTS = TypeAdapter(dict[str, str])


class Labelers:
    """The labelers of all batches of one home folder."""

    def __init__(self, home: Path) -> None:
        self.path = home / FOLDER / FILE

    def add(self, name: str, *, renew: bool = False) -> str:
        """A token for a labeler; it is shown once, and only its digest is kept.

        Args:
            name: of the labeler; part of a file's name.
            renew: replace the token of a labeler who has one.

        Raises:
            ConfigError: no name for a file, or a labeler who has a token already.
            ArtifactError: it cannot be written.
        """
        try:
            TypeAdapter(Name).validate_python(name)
        except ValidationError:
            raise ConfigError(
                f"labeler {name!r}: expected letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
            ) from None
        token = secrets.token_urlsafe(32)
        with readable_os_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")):
                known = self._digests()
                if name in known and not renew:
                    raise ConfigError(
                        f"labeler {name!r} has a token already, which is kept only as a digest; --renew makes another "
                        "one and ends the old one"
                    )
                self._write(known | {name: _digest(token)})
        return token

    def remove(self, name: str) -> None:
        """End a labeler's token; the labels stay.

        Raises:
            ConfigError: nobody of this name has one.
        """
        with readable_os_errors(self.path.parent):
            known = self._digests()
            if name not in known:
                raise ConfigError(f"labeler {name!r} has no token; there are {', '.join(sorted(known)) or 'none'}")
            with FileLock(self.path.with_suffix(".lock")):
                self._write({other: digest for other, digest in self._digests().items() if other != name})

    def names(self) -> list[str]:
        """Everybody who has a token, sorted."""
        return sorted(self._digests())

    def find(self, token: str) -> str | None:
        """Whose token this is."""
        wanted, found = _digest(token), None
        for name, digest in self._digests().items():
            if hmac.compare_digest(wanted, digest):
                found = name
        return found

    def sign(self, name: str, text: str) -> str:
        """What only this server can make of a text for a labeler; it ends with the labeler's token."""
        return hmac.new(self._digests()[name].encode(), text.encode(), hashlib.sha256).hexdigest()

    def _digests(self) -> dict[str, str]:
        if not self.path.is_file():
            return {}
        try:
            return DIGESTS.validate_json(self.path.read_bytes())
        except ValidationError:
            raise DataError(
                f"{self.path}: found a file that cannot be read, expected the name and the token's SHA-256 of each labeler; "
                "restore it, or remove it and make every link again with python -m flows.label add NAME"
            ) from None

    def _write(self, digests: dict[str, str]) -> None:
        draft = self.path.with_name(f".{FILE}-{uuid.uuid4().hex[:8]}")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                json.dump(digests, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self.path)
        finally:
            draft.unlink(missing_ok=True)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
