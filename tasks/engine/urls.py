"""Addresses that may hold a password: recognised, and shown without it."""

import re

_WITH_PASSWORD = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<user>[^\s/:@'\"]*):(?P<password>[^\s/'\"]*)@")


def has_password(text: str) -> bool:
    """Whether there is a ``scheme://user:password@`` in a text."""
    return _WITH_PASSWORD.search(text) is not None


def without_password(text: str) -> str:
    """The text with three stars for every password of an address in it."""
    return _WITH_PASSWORD.sub(r"\g<scheme>\g<user>:***@", text)
