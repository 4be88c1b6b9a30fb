"""The tokenizer of a run: the base model's, or one trained on the pretraining text."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.engine.config import ModelConfig
from tasks.engine.errors import DataError
from tasks.language.tokenizer import check_tokenizer, load_tokenizer
from tasks.language.types import PreTrainedTokenizerBase

if TYPE_CHECKING:  # imported where a tokenizer is trained
    from tokenizers import Tokenizer

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"


def adopt_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase | None:
    """The base model's tokenizer; None when it has to be trained.

    Raises:
        ModelError: the model's tokenizer cannot be loaded or has no EOS.
    """
    if model.tokenizer is not None:
        return None
    assert model.name_or_path is not None
    return load_tokenizer(model.name_or_path, revision=model.revision)


def train_tokenizer(model: ModelConfig, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """A tokenizer for a model built from scratch, whose EOS and pad tokens exist and differ.

    Raises:
        DataError: there is no text to train on.
    """
    knobs = model.tokenizer
    assert knobs is not None
    train = word_level if knobs.kind == "word_level" else byte_pair
    special = {"pad_token": PAD, "eos_token": EOS}
    if knobs.kind == "word_level":
        special["unk_token"] = UNKNOWN
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train(texts, knobs.vocab_size), clean_up_tokenization_spaces=False, **special
    )
    check_tokenizer(tokenizer)
    return tokenizer


def word_level(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """One token per word between spaces: the most frequent words, ties in alphabetical order; the rest is unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    counts = Counter(word for text in texts for word in text.split())
    _require(bool(counts))
    special = [PAD, EOS, UNKNOWN]
    words = sorted(counts.keys() - set(special), key=lambda word: (-counts[word], word))
    vocabulary = {word: place for place, word in enumerate([*special, *words[: vocab_size - len(special)]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    return tokenizer


def byte_pair(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Byte-level byte-pair encoding, as GPT-3's: every text can be written, nothing is unknown.

    Raises:
        DataError: no text, or a vocabulary too small for the 256 bytes and the special tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    special = [PAD, EOS]
    if vocab_size <= 256 + len(special):
        raise DataError(
            f"model.tokenizer.vocab_size is {vocab_size}, but bpe needs 256 bytes and {len(special)} special "
            "tokens before the first merge; give at least 512"
        )
    tokenizer = Tokenizer(models.BPE())
    # Runs of digits are cut to three, so that long numbers do not fill the vocabulary.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d{1,3}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    read = 0

    def counted() -> Iterable[str]:
        nonlocal read
        for text in texts:
            read += bool(text)
            yield text

    tokenizer.train_from_iterator(counted(), trainer)
    _require(read > 0)
    return tokenizer


def _require(any_text: bool) -> None:
    if not any_text:
        raise DataError(
            "tokenizer: found no training text, expected documents or prompts; give documents "
            "(data_prep.files.documents) or use a pretrained model (model=pretrained)"
        )
