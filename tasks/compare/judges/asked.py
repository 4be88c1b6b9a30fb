"""Who decides pairs of responses in an evaluation: one row a judge, which the comparison asks and the checks before it try."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tasks.chat.model import answer_cache
from tasks.compare.judges.chat import ChatJudge
from tasks.compare.judges.config import PairJudgesConfig
from tasks.compare.judges.humans import HumanJudge
from tasks.results.judge import CHAT, HUMANS, PairJudge
from tasks.results.win_rate import Resampling


class AskedJudge(PairJudge, Protocol):
    """A pair judge, with what it has to tell once it has judged."""

    def check(self) -> None:
        """Whatever can be known to fail before any training.

        Raises:
            PlumblineError: with its remedy.
        """
        ...

    def notes(self, how: Resampling) -> list[str]:
        """What a sceptical reader should know, one sentence each."""
        ...

    def spent(self) -> dict[str, float]:
        """What the verdicts took; tracked and not published, because it depends on what was asked before."""
        ...


def _chat(config: PairJudgesConfig, home: Path) -> ChatJudge | None:
    return None if config.chat is None else ChatJudge(CHAT, config.chat, answer_cache(home))


def _humans(config: PairJudgesConfig, home: Path) -> HumanJudge | None:
    return None if config.human_verdicts is None else HumanJudge(HUMANS, Path(config.human_verdicts))


KINDS: tuple[Callable[[PairJudgesConfig, Path], AskedJudge | None], ...] = (_chat, _humans)


def pair_judges(config: PairJudgesConfig, home: Path) -> list[AskedJudge]:
    """Those that the configuration asks for; ``home`` keeps answers from one run to the next.

    Raises:
        PlumblineError: one of them cannot be asked.
    """
    return [judge for kind in KINDS if (judge := kind(config, home)) is not None]
