"""From text to token ids and back: the one layout that every stage uses.

A sequence is prompt tokens, response tokens, EOS (docs/method.md A.5). The prompt's text is exactly what the model sees; between
prompt and response comes what the tokenizer needs to start a new word, decided here and nowhere else.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from tasks.language.types import PreTrainedTokenizerBase
from tasks.language.vocabulary import special_tokens

_joints: "WeakKeyDictionary[PreTrainedTokenizerBase, str]" = WeakKeyDictionary()
_specials: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[str, ...]]" = WeakKeyDictionary()
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


def encode_whole_prompts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """``encode_prompt`` of many texts at once, however long they are."""
    start = _start_tokens(tokenizer)
    return [ids if ids[: len(start)] == start else start + ids for ids in _many(tokenizer, texts)]


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, responses: Sequence[str], befores: Sequence[str]
) -> list[list[int]]:
    """``encode_response`` of many at once."""
    texts = [_joined(tokenizer, response, before) for response, before in zip(responses, befores, strict=True)]
    return [[*ids, int(tokenizer.eos_token_id)] for ids in _many(tokenizer, texts)]


def _many(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return found


def encode_response(tokenizer: PreTrainedTokenizerBase, response: str, before: str) -> list[int]:
    """Token ids of a response, closed by EOS; ``before`` is the prompt's text, "" at the start of a text."""
    return [*_words(tokenizer, response, before), int(tokenizer.eos_token_id)]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: list[int], before: str) -> str:
    """Text of a response up to its first EOS; encoding it again behind the same ``before`` gives the same ids.

    Other special tokens stay visible: a policy that writes them should be judged on it.
    """
    eos = tokenizer.eos_token_id
    words = ids[: ids.index(eos)] if eos in ids else ids
    text: str = tokenizer.decode(words, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    bare = text.removeprefix(_joint(tokenizer))
    return bare if _starts_a_word(bare) and not _apart(tokenizer, before) else text


def _words(tokenizer: PreTrainedTokenizerBase, response: str, before: str) -> list[int]:
    text = _joined(tokenizer, response, before)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if response else []
    return ids


def _joined(tokenizer: PreTrainedTokenizerBase, response: str, before: str) -> str:
    """A response with what comes between it and its prompt."""
    return response if _apart(tokenizer, before) or not _starts_a_word(response) else _joint(tokenizer) + response


def _starts_a_word(text: str) -> bool:
    return bool(text) and not text[0].isspace()


def _apart(tokenizer: PreTrainedTokenizerBase, before: str) -> bool:
    """Whether a word that follows needs no space: at the start of a text, behind white space, behind a special token."""
    return not before or before[-1].isspace() or before.endswith(_endings(tokenizer))


def _endings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    if tokenizer not in _specials:
        _specials[tokenizer] = tuple(sorted(special_tokens(tokenizer)))
    return _specials[tokenizer]


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
