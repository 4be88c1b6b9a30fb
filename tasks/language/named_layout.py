"""The layout that a name stands for, once the tokenizer is known: for prompts that come in behind data preparation."""

from tasks.language.chat_layout import ChatLayout, Turn, has_template
from tasks.language.plain_layout import BARE, Layout, PlainLayout
from tasks.language.types import PreTrainedTokenizerBase


def laid_out(prompts: list[str], prompt_layout: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Single requests as ``data_prep.prompt_layout`` lays them out: by its template, or for auto and chat by the tokenizer's."""
    layout: Layout = BARE
    if "{prompt}" in prompt_layout:
        layout = PlainLayout(prompt_layout)
    elif has_template(tokenizer):
        layout = ChatLayout(tokenizer)
    return [layout.prompt([Turn("user", prompt)]) for prompt in prompts]
