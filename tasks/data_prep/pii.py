"""Find personally identifiable information by rules.

Source: InstructGPT appendix A.2 removes it from the training split and does not say how; these rules are ours.
Rules miss things and hit harmless ones; the audit counts them one by one.
"""

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address

from stdnum import iban, luhn


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)  # of any script
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn.is_valid(str(int(digits)))


def _is_iban(found: str) -> bool:
    """Check sum and the length and letters of its country (ISO 13616)."""
    return bool(iban.is_valid(found, check_country=False))  # a country's own check sums are younger than some accounts


def _is_public_address(found: str) -> bool:
    try:
        return IPv4Address(found).is_global
    except AddressValueError:
        return False


def _always(_found: str) -> bool:
    return True


_STREET = "street|st|avenue|ave|road|rd|lane|ln|drive|boulevard|blvd|court|square|terrace"
_NAME = r"[A-Z][a-z]+(?:[ -][A-Z](?:[a-z]+|\.))*[ -][A-Z][a-z]+"

RULES: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}"), _always),
    "card": (re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]\d)"), _is_card),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _is_iban),
    "social_security": (re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), _always),
    "ip_address": (re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)"), _is_public_address),
    "phone": (
        re.compile(
            r"(?<![\w.])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}"
            r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?!\w)"
        ),
        lambda found: 8 <= sum(letter.isdigit() for letter in found) <= 15,
    ),
    "street_address": (
        re.compile(
            rf"\b\d{{1,5}} (?:[A-Z][\w'.]+ ){{1,3}}(?:{_STREET}|{'|'.join(w.title() for w in _STREET.split('|'))})\b"
        ),
        _always,
    ),
    "own_name": (
        re.compile(rf"\b(?:[Mm]y (?:full )?name is|[Ss]incerely,\s|[Rr]egards,\s|[Ss]igned,?\s)\s*{_NAME}"),
        _always,
    ),
}
"""Rule -> what to look for, and a check of what was found. Names count only where writers give their own."""


def pii_rules(texts: list[str]) -> list[str]:
    """Names of the rules that find something in any of the texts."""
    return [
        name
        for name, (pattern, check) in RULES.items()
        if any(check(match.group()) for text in texts for match in pattern.finditer(text))
    ]
