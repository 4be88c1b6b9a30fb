"""Tokenizers: load, save, and the tokens that every one must have."""

import json
from pathlib import Path

from tasks.engine.errors import ModelError
from tasks.language.loading import ONE_AT_A_TIME, cannot_load, check_tokenizer_files, given_of, source_of
from tasks.language.types import PreTrainedTokenizerBase

PAD_TOKENS = ("<|pad|>", "<pad>", "[PAD]", "<PAD>", "<|finetune_right_pad_id|>", "<|padding|>")
"""Vocabulary entries that can serve as padding; the first is added when a tokenizer has none of them."""


def load_tokenizer(name_or_path: Path | str, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer with an EOS token and a pad token of its own (``add_pad_token``).

    Raises:
        ModelError: there is none, or it has no EOS token.
    """
    check_tokenizer_files(name_or_path)
    from transformers import AutoTokenizer

    try:
        with ONE_AT_A_TIME:
            tokenizer = AutoTokenizer.from_pretrained(source_of(name_or_path), **given_of(revision))
    except (OSError, ValueError, KeyError) as error:
        raise cannot_load(name_or_path, "tokenizer", error) from error
    add_pad_token(tokenizer)
    check_tokenizer(tokenizer)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path | str) -> None:
    """Save a tokenizer without the notes ``transformers`` leaves about where it was read from."""
    tokenizer.save_pretrained(folder)
    path = Path(folder) / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for note in ("is_local", "local_files_only", "name_or_path"):
        settings.pop(note, None)
    path.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def add_pad_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer a pad token that is not its EOS: one that its vocabulary already has, else a new ``<|pad|>``.

    A new one gets the next free id, which may lie outside the model's embedding. That is fine: padding is replaced
    before the embedding and never counted, so the embedding keeps its size.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    vocabulary = tokenizer.get_vocab()
    known = (token for token in PAD_TOKENS if token in vocabulary and vocabulary[token] != tokenizer.eos_token_id)
    tokenizer.add_special_tokens({"pad_token": next(known, PAD_TOKENS[0])})


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Require an EOS token, and a pad token that is another one.

    Raises:
        ModelError: either is missing, or they are the same: the end of a response would look like padding.
    """
    name = tokenizer.name_or_path or type(tokenizer).__name__
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if eos is None:
        raise ModelError(f"tokenizer {name}: found no EOS token, expected one that ends responses; set eos_token")
    if pad is None or pad == eos:
        found = "no pad token" if pad is None else f"pad token id {pad} equal to the EOS id"
        raise ModelError(f"tokenizer {name}: found {found}, expected an id of its own; call add_pad_token on it")
