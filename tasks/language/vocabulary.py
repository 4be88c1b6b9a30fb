"""Ids of a tokenizer and rows of an embedding: the two need not be as many.

A tokenizer without padding of its own gets a ``<|pad|>`` behind its last id, which needs no row: padding is replaced before
the embedding and never counted. Other models have rows for ids that the tokenizer does not know, to fill a round number.
"""

from tasks.language.types import PreTrainedModel, PreTrainedTokenizerBase


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Every token that is no text: those with a name, such as EOS, and the others that the tokenizer marks as special."""
    marked = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return marked | {str(token) for token in tokenizer.all_special_tokens}


def rows_for_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows an embedding needs for every id that training data may contain: ordinary tokens, EOS and the start token.

    Padding needs none, nor do other special tokens, which rows of data must not spell.
    """
    special = special_tokens(tokenizer)
    ordinary = (place for token, place in tokenizer.get_vocab().items() if token not in special)
    return 1 + int(max([tokenizer.eos_token_id, *tokenizer("a")["input_ids"], *ordinary]))


def rows_with_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows of an embedding up to the last id that means something; padding that comes behind it does not count."""
    return 1 + int(max(place for place in tokenizer.get_vocab().values() if place != tokenizer.pad_token_id))


def rows_of(model: PreTrainedModel) -> int:
    """Rows of the model's embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


def cut_rows_without_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Take the rows behind the tokenizer's last id off the embedding and the output head; returns how many.

    They decode to nothing, and a response that contains one is not the text that judges read. Without them they cannot be
    drawn, and the softmax is the one over the ids that are left, in every stage and in the model that is released.
    """
    spare = rows_of(model) - rows_with_text(tokenizer)
    if spare > 0:
        model.resize_token_embeddings(rows_with_text(tokenizer))
    return max(0, spare)
