"""How prompts are laid out: by a template of one's own, or by the tokenizer's chat template."""

from tasks.data_prep.config import AUTO, CHAT
from tasks.engine.errors import ConfigError
from tasks.language.chat_layout import ChatLayout, has_template
from tasks.language.plain_layout import BARE, Layout, PlainLayout
from tasks.language.tokenizer import add_pad_token
from tasks.language.types import PreTrainedTokenizerBase


def layout_of(prompt_layout: str, tokenizer: PreTrainedTokenizerBase | None) -> Layout:
    """The layout that the configuration names; a chat layout makes its end of turn the tokenizer's EOS.

    Raises:
        ConfigError: the tokenizer has no chat template, or there is none yet because it will be trained.
        ModelError: the template cannot be used.
    """
    if prompt_layout not in (AUTO, CHAT):
        return PlainLayout(prompt_layout)
    if tokenizer is None or not has_template(tokenizer):
        if prompt_layout == AUTO:
            return BARE
        found = "trained from scratch" if tokenizer is None else "without a chat template"
        raise ConfigError(
            f"data_prep.prompt_layout is {CHAT}, and the model's tokenizer is {found}; give a model with a chat template, or "
            'a layout such as prompt_layout="Human: {prompt}\\n\\nAssistant:"'
        )
    layout = ChatLayout(tokenizer)
    tokenizer.eos_token = layout.end_of_turn
    add_pad_token(tokenizer)  # what was its pad token may be its EOS now
    return layout


def notice_of_template(prompt_layout: str, tokenizer: PreTrainedTokenizerBase | None) -> list[str]:
    """What to say where a chat model is shown something else than it was trained on."""
    if prompt_layout in (AUTO, CHAT) or tokenizer is None or not has_template(tokenizer):
        return []
    return [
        f"prompts are laid out as {prompt_layout!r}, and the tokenizer has a chat template; "
        f"data_prep.prompt_layout={CHAT} lays them out as the model knows them"
    ]
