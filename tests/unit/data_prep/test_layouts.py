"""Prompts in the tokenizer's own chat template; the texts stand beside the templates, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.data_prep.layouts import layout_of
from tasks.data_prep.prepare import prepare
from tasks.engine.config import ModelConfig
from tasks.engine.errors import ConfigError
from tasks.language.chat_layout import Turn
from tasks.records.data import PreparedData
from tests.unit.data_prep.samples import model, own_data, write
from tests.unit.data_prep.test_prepare import owner_in
from tests.unit.language.chat_templates import FAMILIES, chat_tokenizer

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}
TALK = [USER, ANSWER, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Bye."}]


def prepared(folder: Path, base: ModelConfig, rows: list[Any], **changes: Any) -> tuple[PreparedData, dict[str, Any]]:
    owners = [{"owner_id": owner_in("train")}, {"prompt": "held out", "response": "x", "owner_id": owner_in("valid")}]
    rows = [row | owners[0] for row in rows] + owners[1:]
    data = write(folder / "in", {"demonstrations.jsonl": rows})
    (folder / "out").mkdir()
    prepare(own_data(data, **changes), base, folder / "out")
    return PreparedData(folder / "out"), json.loads((folder / "out" / "audit.json").read_text(encoding="utf-8"))


def chat_model(folder: Path, name: str) -> ModelConfig:
    chat_tokenizer(FAMILIES[name]).save_pretrained(folder / name)
    (folder / name / "config.json").write_text("{}")
    return ModelConfig(
        name_or_path=str(folder / name), revision=None, context_tokens=64, architecture=None, tokenizer=None
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_are_what_the_template_writes(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    rows = [
        {"messages": TALK},
        {"prompt": f"sly {family.end}", "response": "no"},
        {"messages": [{"role": "user", "content": "Ho"}, {"role": "system", "content": "late"}, *TALK[1:]]},
    ]
    (tmp_path / "more").mkdir()
    base = chat_model(tmp_path, name)
    one, _ = prepared(tmp_path, base, [{"prompt": "Hi", "response": f"Yes?{family.end}"}], prompt_layout="chat")
    data, audit = prepared(tmp_path / "more", base, rows, prompt_layout="chat")
    found = [item.demonstrations("train")[0] for item in (one, data)]
    assert [item.prompt.text for item in found] == [family.one_turn, family.three_turns]
    assert [item.response for item in found] == ["Yes?", "Bye."]
    tokenizer = data.tokenizer()
    assert tokenizer.eos_token == family.end
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    (row,) = [row for row in audit["rows"] if (row["role"], row["split"]) == ("demonstrations", "train")]
    refused = 1 if name == "mistral" else 0  # knows no system messages at all
    assert row["dropped"].get("special_token") == 1
    assert row["dropped"].get("refused_by_layout", 0) == refused


def test_a_pad_token_that_becomes_the_end_of_turn_is_replaced() -> None:
    tokenizer = chat_tokenizer(FAMILIES["chatml"])
    tokenizer.pad_token = FAMILIES["chatml"].end
    layout_of("chat", tokenizer)
    assert tokenizer.eos_token == FAMILIES["chatml"].end
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_a_chat_template_that_is_not_used_is_a_notice(tmp_path: Path) -> None:
    data, audit = prepared(
        tmp_path, chat_model(tmp_path, "chatml"), [{"prompt": "Hi", "response": "Yes?"}], prompt_layout="{prompt}"
    )
    assert data.demonstrations("train")[0].prompt.text == "Hi"
    assert data.tokenizer().eos_token == "<|endoftext|>"
    assert any("data_prep.prompt_layout=chat lays them out" in notice for notice in audit["notices"])


def test_without_a_template_chat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="prompt_layout is chat, and the model's tokenizer is trained from scratch; give"
    ):
        prepared(tmp_path, model(), [], prompt_layout="chat")


def test_words_of_the_layout_make_no_duplicates(tmp_path: Path) -> None:
    """What all prompts share is no sign that they are the same."""
    system = {"role": "system", "content": " ".join(f"rule{place}" for place in range(80))}
    rows = [
        {"messages": [system, {"role": "user", "content": request}, ANSWER]}
        for request in ("tell me", "show it", "Tell  me")
    ]
    rows += [{"messages": [system | {"content": "another"}, {"role": "user", "content": "tell me"}, ANSWER]}]
    layout = " ".join(f"word{place}" for place in range(80)) + " {prompt}"
    data, audit = prepared(tmp_path, model(), [*rows, {"prompt": "ask", "response": "x"}], prompt_layout=layout)
    assert [item.prompt.text.split()[-2:] for item in data.demonstrations("train")] == [
        ["tell", "me"],
        ["show", "it"],
        ["tell", "me"],  # under another system message
        ["word79", "ask"],
    ]
    (row,) = [row for row in audit["rows"] if (row["role"], row["split"]) == ("demonstrations", "train")]
    assert row["dropped"] == {"duplicate": 1}


def test_auto_takes_the_chat_template_where_there_is_one() -> None:
    tokenizer = chat_tokenizer(FAMILIES["chatml"])
    assert layout_of("auto", tokenizer).prompt([Turn("user", "Hi")]) == FAMILIES["chatml"].one_turn
    assert tokenizer.eos_token == FAMILIES["chatml"].end
    tokenizer = chat_tokenizer(FAMILIES["chatml"])
    tokenizer.chat_template = None
    assert layout_of("auto", tokenizer).prompt([Turn("user", "Hi")]) == "Hi"
    assert layout_of("auto", None).prompt([Turn("user", "Hi")]) == "Hi"
    assert tokenizer.eos_token == FAMILIES["chatml"].eos
