"""What a run of several rounds leaves about them: one row a round, as a record and as tables."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tasks.results.judges import JUDGES
from tasks.results.sheet import SheetRecord
from tasks.results.win_rate import Interval, WinRate

ROUNDS, FIGURE = "rounds.json", "rounds.svg"


class RoundRow(SheetRecord):
    """The run's own policy after one round, and the reward model that it was optimised against."""

    number: int
    accuracy_before: float | None
    """Accuracy of the round before's reward model on this round's validation rankings; None in the first round, and where
    nothing could be counted."""
    accuracy: float | None
    """Accuracy of this round's reward model on the same rankings."""
    win: dict[str, WinRate]
    """Against SFT, both sampled, by judge."""
    scores: dict[str, float]
    """Mean score by judge; the reward model is the last round's in every row."""
    kl: Interval | None
    """To PPO-init, nats a response."""


class Rounds(SheetRecord):
    """All rounds of a run."""

    confidence: float
    rows: list[RoundRow]

    @property
    def judges(self) -> list[str]:
        """Those that decided in every round, in their order."""
        return [judge for judge in JUDGES if all(judge in row.win for row in self.rows)]

    @property
    def headings(self) -> list[str]:
        """Of the table."""
        wins = [f"win rate by the {JUDGES[judge].title}" for judge in self.judges]
        scores = [f"score of the {JUDGES[judge].title}" for judge in self.judges if judge in self.rows[0].scores]
        return ["round", *wins, *scores, "KL to PPO-init", "old reward model on new responses", "new one on the same"]

    def cells(self) -> Iterator[list[str]]:
        """Of the table, row by row."""
        for row in self.rows:
            wins = [_percent(row.win[judge].bootstrap) for judge in self.judges]
            scores = [f"{row.scores[judge]:.2f}" for judge in self.judges if judge in row.scores]
            kl = f"{row.kl.estimate:.2f}" if row.kl else ""
            yield [str(row.number), *wins, *scores, kl, _share(row.accuracy_before), _share(row.accuracy)]

    def terminal(self) -> Table:
        """For ``rich.print``, in at most 100 columns; only the deciding judge's interval is shown."""
        table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
        scored = [judge for judge in self.judges if judge in self.rows[0].scores]
        short = {judge: JUDGES[judge].short for judge in self.judges}
        headings = ["Round\n", *[f"Win %\n{short[judge]}" for judge in self.judges]]
        headings += [*[f"Score\n{short[judge]}" for judge in scored], "KL\nnats", "Old RM,\nnew resp.", "New RM,\nsame"]
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            wins = [f"{100 * row.win[judge].bootstrap.estimate:.1f}" for judge in self.judges]
            if wins:
                wins[0] = _percent(row.win[self.judges[0]].bootstrap).removesuffix(" %")
            kl = f"{row.kl.estimate:.2f}" if row.kl else "-"
            accuracies = [_share(row.accuracy_before) or "-", _share(row.accuracy) or "-"]
            table.add_row(str(row.number), *wins, *[f"{row.scores[judge]:.2f}" for judge in scored], kl, *accuracies)
        return table


def _percent(rate: Interval) -> str:
    return f"{100 * rate.estimate:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}] %"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
