"""Addresses that may hold a password: recognised, and shown without it."""

import re

_IN_FRONT = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<user>[^\s/:@'\"]*):(?P<password>[^\s/'\"]*)@")
_IN_QUERY = re.compile(
    r"(?P<address>://[^\s'\"]*[?&]\w*(?:password|passwd|pwd)=)(?P<password>[^\s&'\"]+)", re.IGNORECASE
)


def has_password(text: str) -> bool:
    """Whether there is a ``scheme://user:password@`` or a ``scheme://...?password=...`` in a text."""
    return bool(_IN_FRONT.search(text) or _IN_QUERY.search(text))


def without_password(text: str) -> str:
    """The text with three stars for every password of an address in it."""
    return _IN_QUERY.sub(r"\g<address>***", _IN_FRONT.sub(r"\g<scheme>\g<user>:***@", text))
