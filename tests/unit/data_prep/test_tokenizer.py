import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.data_prep.tokenizer import adopt_tokenizer, train_tokenizer
from tasks.engine.config import ModelConfig
from tasks.engine.errors import DataError
from tasks.language.text import decode_response, encode_prompt, encode_response
from tests.unit.data_prep.samples import model

TEXTS = ["the cat sat on the mat .", "the dog ate the red mat .", "Grüße, 12345 naïve 🙂 people!\n\nAssistant: ok"]


def test_word_level_takes_the_most_frequent_words_ties_by_alphabet() -> None:
    tokenizer = train_tokenizer(model(vocab_size=9), ["b b b a a c d", "<eos>"])
    assert tokenizer.get_vocab() == {"<pad>": 0, "<eos>": 1, "<unk>": 2, "b": 3, "a": 4, "c": 5, "d": 6}
    small = train_tokenizer(model(vocab_size=9), ["z y x w v u t"])
    assert set(small.get_vocab()) == {"<pad>", "<eos>", "<unk>", *"tuvwxy"}
    assert small("t z")["input_ids"] == [3, 2]


@pytest.mark.parametrize("kind", ["word_level", "bpe"])
def test_special_tokens_differ_and_text_survives(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(model(kind), TEXTS)
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id}) == 2
    for text in TEXTS[: 2 if kind == "word_level" else 3]:
        assert tokenizer.decode(encode_prompt(tokenizer, text, 999)) == text
        assert decode_response(tokenizer, encode_response(tokenizer, text, ""), "") == text


def test_bpe_respects_its_size_and_knows_every_byte() -> None:
    tokenizer = train_tokenizer(model("bpe", 300), TEXTS * 20)
    assert len(tokenizer) == 300
    assert tokenizer.unk_token_id is None
    assert tokenizer.decode(tokenizer("日本 \x00 \t ok")["input_ids"]) == "日本 \x00 \t ok"


@pytest.mark.slow
def test_bpe_is_the_same_in_another_process() -> None:
    code = (
        "from tests.unit.data_prep.samples import model; from tests.unit.data_prep.test_tokenizer import TEXTS;"
        "from tasks.data_prep.tokenizer import train_tokenizer;"
        "print(train_tokenizer(model('bpe', 330), TEXTS).backend_tokenizer.to_str())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "5", "RAYON_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == train_tokenizer(model("bpe", 330), TEXTS).backend_tokenizer.to_str()


def test_a_model_folder_brings_its_own(tmp_path: Path) -> None:
    train_tokenizer(model(), TEXTS).save_pretrained(tmp_path / "base")
    adopted = ModelConfig(
        name_or_path=str(tmp_path / "base"), revision=None, context_tokens=64, architecture=None, tokenizer=None
    )
    assert adopt_tokenizer(model()) is None
    tokenizer = adopt_tokenizer(adopted)
    assert tokenizer is not None
    tokenizer.save_pretrained(tmp_path / "artifact")
    assert encode_prompt(tokenizer, "the cat", 9) == encode_prompt(train_tokenizer(model(), TEXTS), "the cat", 9)
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "artifact").iterdir())


def test_errors() -> None:
    with pytest.raises(DataError, match="found no training text, expected documents or prompts; give documents"):
        train_tokenizer(model(), [])
    with pytest.raises(DataError, match="found no training text"):
        train_tokenizer(model("bpe"), [])
    with pytest.raises(DataError, match="vocab_size is 200, but bpe needs 256 bytes and 2 special tokens"):
        train_tokenizer(model("bpe", 200), TEXTS)
