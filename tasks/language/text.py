"""From text to token ids and back: the one layout that every stage uses.

A sequence is prompt tokens, response tokens, EOS (docs/method.md A.5). The prompt's text is exactly what the model sees; between
prompt and response stands what the tokenizer needs to start a new word, decided here and nowhere else.
"""

from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

_joints: "WeakKeyDictionary[PreTrainedTokenizerBase, str]" = WeakKeyDictionary()
_starts: "WeakKeyDictionary[PreTrainedTokenizerBase, list[int]]" = WeakKeyDictionary()


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> list[int]:
    """Token ids of a prompt, with the start token if the tokenizer has the habit of adding one; once, as a chat template
    may have written it already.

    A prompt longer than ``max_tokens`` keeps its end, which holds the request and the cue to answer.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = _start_tokens(tokenizer)
    if start and ids[: len(start)] == start:
        ids = ids[len(start) :]
    return start + ids[max(0, len(ids) + len(start) - max_tokens) :]


def encode_response(tokenizer: PreTrainedTokenizerBase, response: str) -> list[int]:
    """Token ids of a response, closed by EOS."""
    return [*_words(tokenizer, response), int(tokenizer.eos_token_id)]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Text of a response up to its first EOS; the inverse of ``encode_response``.

    Other special tokens stay visible: a policy that writes them should be judged on it.
    """
    eos = tokenizer.eos_token_id
    words = ids[: ids.index(eos)] if eos in ids else ids
    text: str = tokenizer.decode(words, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text.removeprefix(_joint(tokenizer))


def _words(tokenizer: PreTrainedTokenizerBase, response: str) -> list[int]:
    if not response:
        return []
    ids: list[int] = tokenizer(_joint(tokenizer) + response, add_special_tokens=False)["input_ids"]
    return ids


def _joint(tokenizer: PreTrainedTokenizerBase) -> str:
    """What to put before a response so that its first word is tokenized as it is inside a text: nothing or one space.

    Byte-level BPE writes the space into the token that follows it; word-level and SentencePiece tokenizers need none.
    """
    joint = _joints.get(tokenizer)
    if joint is None:

        def ids(text: str) -> list[int]:
            found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return found

        joint = "" if ids("a b") == ids("a") + ids("b") else " "
        _joints[tokenizer] = joint
    return joint


def _start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    start = _starts.get(tokenizer)
    if start is None:
        # Asked of a call: some add it by the setting add_bos_token, others (Llama 3) by a template of their own.
        bos = tokenizer.bos_token_id
        start = [] if bos is None or tokenizer("a")["input_ids"][:1] != [bos] else [int(bos)]
        _starts[tokenizer] = start
    return start
