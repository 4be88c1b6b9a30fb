import pytest

from tasks.data_prep.pii import pii_rules


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("email", "write to jane.doe+x@mail.example.org today"),
        ("card", "my card is 4111 1111 1111 1111, thanks"),
        ("card", "5500-0000-0000-0004"),
        ("card", "4539 1488 0343 6467"),  # one 9 in a place that is not doubled
        ("card", "30569309025904"),  # 9s in both kinds of places
        ("card", "４１１１ １１１１ １１１１ １１１１"),  # full-width digits
        ("iban", "NO93 8601 1117 947"),  # the shortest country
        ("iban", "pay to GB82 WEST 1234 5698 7654 32 now"),
        ("iban", "DE89370400440532013000"),
        ("social_security", "ssn 219-09-9999."),
        ("ip_address", "log in at 8.8.4.4"),
        ("phone", "call +49 30 901820 soon"),
        ("phone", "call (555) 123-4567"),
        ("phone", "call 555-123-4567."),
        ("street_address", "I live at 221 Baker Street, London"),
        ("street_address", "1600 Pennsylvania Ave"),
        ("own_name", "Hello, my name is Jane Doe and I"),
        ("own_name", "Sincerely,\nJohn Q. Public"),
    ],
)
def test_found(rule: str, text: str) -> None:
    assert rule in pii_rules([text])


@pytest.mark.parametrize(
    "text",
    [
        "the ratio a@b is fine",
        "order 4111 1111 1111 1112 is no card",  # check sum
        "0000 0000 0000 0000",
        "GB83 WEST 1234 5698 7654 32",  # check sum
        "XX57 WEST 1234 5698 7654 32",  # the sum is right, but there is no such country
        "000-12-3456",
        "at 127.0.0.1 or 192.168.1.7 or 999.8.8.8",
        "version 1.2.3.4.5",
        "in 1999 there were 12 345 678 people",
        "the sum is 3.14159265358979",
        "she walked 12 miles down the street",
        "my name is Bond",
        "Mr. Darcy met Elizabeth Bennet",
        "q : what does zoe do ? a :",
    ],
)
def test_left_alone(text: str) -> None:
    assert pii_rules([text]) == []


def test_every_rule_is_named_once_over_all_texts() -> None:
    assert pii_rules(["a@b.com", "c@d.com", "8.8.8.8"]) == ["email", "ip_address"]
