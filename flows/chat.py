"""Talk to a policy in the terminal: `python -m flows.chat model=FOLDER`.

``model`` may also be the MLflow id of a run, or a registered version such as ``models:/plumbline-policy@champion``.

Answers are streamed; the conversation is shown to the model in its own chat layout. `--compare` puts the SFT policy of the
same run, or any other folder, beside it: both answer every message, each in its own conversation.
"""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flows import terminal
from flows.config import load
from flows.parser import Parser, policy_and_tracking
from flows.process import environment  # noqa: F401  first: sets where the databases lie
from flows.tools.policies import find_policy
from flows.tracking_config import TrackingConfig
from tasks.engine.errors import ConfigError, PlumblineError
from tasks.language.chat_layout import ChatLayout, Turn, has_template
from tasks.language.conversation import HIGHEST, LOWEST, context_of, ends_of, require_rows
from tasks.language.seeds import named_generator
from tasks.language.text import encode_prompt
from tasks.language.tokenizer import load_tokenizer

ANSWER = 256
"""Tokens of an answer, unless told otherwise."""
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(
    range(127, 160), "\u2421"
)
HELP = "/reset forgets the conversation, /system TEXT sets the system message, /quit ends (as does Ctrl-D)"


class Partner:
    """A policy and its side of the conversation.

    Args:
        folder: Hugging Face model folder.
        device: to run on.
        system: message that opens the conversation; needs a chat template.
        temperature: 0 takes the most likely token.
        tokens: longest answer; None takes ``ANSWER``, or half of what the model reads where that is less.
        seed: of the first answer; every further answer draws on.

    Raises:
        ModelError: the folder holds no policy, or a chat template that cannot be used.
    """

    def __init__(
        self, folder: Path, device: str, system: str | None, temperature: float, tokens: int | None, seed: int
    ) -> None:
        from tasks.language.models import load_policy  # torch: a mistake in what was typed is answered before

        self.turns: list[Turn] = []
        self.unread = ""
        """What of the conversation the last answer was written without, if anything."""
        # an artifact lies in <stage>/<fingerprint>/policy
        self.name = folder.parent.parent.name if folder.name == "policy" else folder.name
        self._model, self._tokenizer = load_policy(folder, device).eval(), load_tokenizer(folder)
        require_rows(folder, self._model, self._tokenizer)
        context = context_of(self._model)
        self._temperature, self._tokens = temperature, tokens or min(ANSWER, context // 2)
        self._draws = named_generator(seed, "chat")
        if self._tokens >= context:
            raise ConfigError(f"--tokens is {self._tokens}, and {self.name} reads {context} with its prompt; lower it")
        self.set_system(system)

    def set_system(self, system: str | None) -> None:
        """Open the conversation with another message.

        Raises:
            ModelError: the model's chat template takes none.
            ConfigError: the model has no chat template.
        """
        if not has_template(self._tokenizer):
            if system is not None:
                raise ConfigError(
                    f"{self.name}: found no chat template, expected one for the system message; leave system out"
                )
            self._layout = None
        else:
            self._layout = ChatLayout(self._tokenizer, system)

    def answer(self, message: str) -> Iterator[str]:
        """The answer so far, longer each time; the whole is remembered.

        A conversation that outgrows the model's context loses its oldest messages, and one message its beginning.
        """
        self.turns.append(Turn("user", message))
        if self._layout is None:  # a model of bare text continues the message
            self.turns = self.turns[-1:]
        room, before, self.unread = context_of(self._model) - self._tokens, len(self.turns), ""
        while len(self.turns) > 1 and len(self._prompt()) > room:
            self.turns = self.turns[2:]
        prompt = self._prompt()
        if len(prompt) > room:
            self.unread = f"the beginning of the message: it has {len(prompt)} tokens with what surrounds it"
        elif len(self.turns) < before:
            self.unread = f"the {before - len(self.turns)} oldest messages, which are forgotten"
        if self.unread:
            self.unread = (
                f"{self.name} did not read {self.unread}; {room} fit beside an answer of --tokens {self._tokens}"
            )
        prompt = self._prompt(room)
        said: list[int] = []
        text = ""
        from tasks.language.generation import stream

        try:
            for token in stream(
                self._model,
                prompt,
                max_new_tokens=self._tokens,
                temperature=self._temperature,
                generator=self._draws,
                eos_ids=ends_of(self._model, self._tokenizer, self._layout),
            ):
                said.append(token)
                read: str = self._tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
                if not read.endswith("\ufffd"):  # half of a character
                    text = read
                    yield text.lstrip(" ")
        finally:  # also what was written until Ctrl-C: turns alternate, and many templates insist on it
            self.turns.append(Turn("assistant", text.strip()))

    def _prompt(self, room: int = sys.maxsize) -> list[int]:
        text = self.turns[-1].content if self._layout is None else self._layout.prompt(self.turns)
        return encode_prompt(self._tokenizer, text, room)


def answer_all(console: Console, partners: Sequence[Partner], message: str) -> None:
    """Print every partner's answer as it comes: one below the message, two side by side."""
    if len(partners) == 1:
        shown = ""
        for text in partners[0].answer(message):
            console.print(visible(text[len(shown) :]), end="", highlight=False, soft_wrap=True)
            shown = text
        console.print(*([] if shown else ["[ended without a word]"]), style="dim", highlight=False)
        return
    texts = [""] * len(partners)
    running = {index: partner.answer(message) for index, partner in enumerate(partners)}
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while running:
            for index, answers in list(running.items()):
                following = next(answers, None)
                if following is None:
                    del running[index]
                else:
                    texts[index] = following
            live.update(side_by_side([partner.name for partner in partners], texts), refresh=True)


def side_by_side(names: Sequence[str], texts: Sequence[str]) -> Table:
    """One column for each answer."""
    table = Table(expand=True)
    for name in names:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*(visible(text) for text in texts))
    return table


def visible(text: str) -> str:
    """With a picture for every control character but line break and tab: a model's text is none of the terminal's business."""
    return text.translate(PICTURES)


def converse(console: Console, partners: Sequence[Partner]) -> None:
    """Read messages until the input ends."""
    console.print(f"{' | '.join(partner.name for partner in partners)}. {HELP}", highlight=False)
    while True:
        try:
            message = console.input(Text("> ", "bold")).strip()
            message.encode()
        except EOFError:
            console.print()
            return
        except UnicodeError:
            console.print("error: found bytes that are not UTF-8, expected text; this message is left out", style="dim")
            continue
        command, _, rest = message.partition(" ")
        if command == "/quit":
            return
        if command == "/reset" or command == "/system":
            try:
                for partner in partners:
                    if command == "/system":
                        partner.set_system(rest.strip() or None)
                    partner.turns.clear()
            except PlumblineError as error:  # no reason to lose the conversation
                console.print(f"error: {error}", style="dim", highlight=False, soft_wrap=True)
                continue
            console.print("a new conversation", style="dim")
        elif command.startswith("/"):
            console.print(HELP, style="dim")
        elif message:
            try:
                answer_all(console, partners, message)
            except KeyboardInterrupt:  # ends this answer
                console.print(" [interrupted]", style="dim")
            for unread in filter(None, (partner.unread for partner in partners)):
                console.print(unread, style="dim", highlight=False, soft_wrap=True)


def partners_of(given: argparse.Namespace, model: str, tracking: TrackingConfig) -> list[Partner]:
    """The policy, and what it is compared with.

    Raises:
        PlumblineError: one of them cannot be found or used.
    """
    from flows.ask.doctor.requirements import check_device  # seconds of imports, for which --help does not wait

    check_device(given.device, knob="--device", otherwise="--device cpu")
    named = find_policy(model, tracking)
    folders = [named.folder]
    if given.compare == "":
        if named.sft is None:
            raise ConfigError(
                f"--compare: which SFT policy {model} was made from is not known here; give its folder: "
                "--compare FOLDER"
            )
        folders.insert(0, named.sft)
    elif given.compare is not None:
        folders.insert(0, find_policy(given.compare, tracking).folder)
    return [
        Partner(folder, given.device, given.system, given.temperature, given.tokens, given.seed) for folder in folders
    ]


def main() -> None:
    """Command line."""
    parser = Parser(prog="python -m flows.chat", description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="+", metavar="model=...", help="and the run's tracking.*, if it changed them")
    parser.add_argument("--compare", nargs="?", const="", metavar="FOLDER", help="another policy beside it; alone: SFT")
    parser.add_argument("--system", help="system message")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 takes the most likely token; default 0.7")
    parser.add_argument("--tokens", type=int, help=f"longest answer; default {ANSWER}, or half of what the model reads")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    given = parser.parse_intermixed_args()
    model, others = policy_and_tracking(parser, given.settings)
    if given.tokens is not None and given.tokens < 1:
        parser.error(f"--tokens: found {given.tokens}, expected at least 1")
    if given.temperature != 0 and not LOWEST <= given.temperature <= HIGHEST:
        parser.error(
            f"--temperature: found {given.temperature}, expected 0, which takes the most likely token, or {LOWEST} to {HIGHEST}"
        )
    screen = terminal.console()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # one message that is no text should not end the conversation
    try:
        tracking = load(others).tracking
        converse(screen, partners_of(given, model, tracking))
    except PlumblineError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        screen.print()


if __name__ == "__main__":
    main()
