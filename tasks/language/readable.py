"""A prompt as people read it: what a chat template wrote around a request is taken away again."""

from collections.abc import Callable

from tasks.language.chat_layout import PROBE, ChatLayout, Turn
from tasks.language.types import PreTrainedTokenizerBase
from tasks.language.vocabulary import special_tokens


def reader(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """Makes a prompt's text readable. A conversation of several turns keeps its role names, and loses the special tokens."""
    before = after = ""
    if tokenizer.chat_template:
        before, _, after = ChatLayout(tokenizer).prompt([Turn("user", PROBE)]).partition(PROBE)
    specials = sorted(special_tokens(tokenizer), key=len, reverse=True)

    def readable(text: str) -> str:
        if before and text.startswith(before) and text.endswith(after):
            inner = text[len(before) : len(text) - len(after)]
            if not any(token in inner for token in specials):
                return inner
        for token in specials:
            text = text.replace(token, "")
        return text.strip() or "(an empty prompt)"

    return readable
