import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from flows.run.data_account import accounts, remarks, say_what_happened
from tasks.data_prep import rules
from tasks.data_prep.rules import RULES


def row(role: str, split: str, read: int, **dropped: int) -> dict[str, Any]:
    examples = {rule: f"{role}.jsonl:{place}" for place, rule in enumerate(dropped, start=3)}
    return {"role": role, "split": split, "read": read, "dropped": dropped, "examples": examples}


ROWS = [
    row("demonstrations", "test", 5, became_test_prompts=5),
    row("demonstrations", "valid", 15, pii=0),
    row("demonstrations", "train", 80, long_prompt=20, duplicate=3, special_token=10),
    row("rl_prompts", "train", 1000, pii=30, duplicate=31),
    {"role": "comparisons", "split": "train", "read": 0, "dropped": {}},
]


def test_a_role_is_counted_over_its_splits_and_test_prompts_are_no_loss() -> None:
    found = accounts(ROWS)
    assert {role: (account.read, account.lost) for role, account in found.items()} == {
        "demonstrations": (100, 33),
        "rl_prompts": (1000, 61),
    }


def test_what_is_worth_a_line() -> None:
    lines = remarks(accounts(ROWS), ["a notice"])
    assert lines[0] == "warning: 33% of demonstrations are gone, 33 of 100 rows"
    assert lines[1].startswith(
        "20 of 100 demonstrations are left out by the rule long_prompt: they have a longer prompt"
    )
    assert "; the first is demonstrations.jsonl:3; raise it" in lines[1]
    assert lines[2].startswith("10 of 100 demonstrations are left out by the rule special_token")
    assert lines[3].startswith("31 of 1000 rl_prompts are left out by the rule duplicate")  # 30 of pii is 3 %
    assert lines[4:] == ["a notice"]


def test_the_table_names_the_two_largest_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("plumbline").setLevel(logging.INFO)
    audit = {"source": "folder", "rows": ROWS, "notices": []}
    (tmp_path / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    say_what_happened(tmp_path)
    shown = capsys.readouterr().out
    cells = [
        [cell.strip() for cell in line.split("│")]
        for line in shown.splitlines()
        if "demonstrations" in line and "│" in line
    ]
    assert cells[0][1:5] == ["demonstrations", "100", "67", "long_prompt 20, special_token 10"]
    (tmp_path / "audit.json").write_text(json.dumps(audit | {"source": "sandbox", "rows": ROWS[:2]}), encoding="utf-8")
    say_what_happened(tmp_path)
    assert capsys.readouterr().out == ""


def test_every_rule_that_drops_rows_is_explained() -> None:
    folder = Path(rules.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py") if path.name != "rules.py")
    used = set(re.findall(r'(?:LeftOut|\.drop|leave_out)\(\s*(?:role, )?(?:split, )?"(\w+)"', source))
    used |= set(re.findall(r'\d: "(\w+)"', (folder / "clean.py").read_text(encoding="utf-8")))
    used |= set(re.findall(r'return "(\w+)"', (folder / "lengths.py").read_text(encoding="utf-8")))
    used |= {"special_token"} if '"special_token" if' in source else set()
    assert used == set(RULES)
