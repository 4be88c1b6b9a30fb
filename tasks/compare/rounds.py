"""The run's own policy over its rounds: every round's sheet against the same baseline, and the picture of it."""

import json
from collections.abc import Mapping
from pathlib import Path

from tasks.compare.compare import compare_sheets
from tasks.compare.config import CompareConfig
from tasks.compare.plots import panels_of, svg_of
from tasks.results.judges import JUDGES
from tasks.results.policies import names_of
from tasks.results.rounds import RoundRow, Rounds
from tasks.results.sheet import BASELINE, PolicySheet

OWN = names_of("own")[0]
"""The name under which a round's policy is compared."""


def rows_of(
    baseline: PolicySheet,
    sheets: Mapping[int, PolicySheet],
    accuracies: Mapping[int, tuple[float | None, float | None]],
    config: CompareConfig,
) -> Rounds:
    """One row a round.

    Args:
        baseline: the SFT baseline's sheet.
        sheets: round -> sheet of its policy.
        accuracies: round -> accuracy of the old and of the new reward model on the round's responses.
        config: of the comparison.
    """
    rows = []
    for number, sheet in sorted(sheets.items()):
        row = compare_sheets({BASELINE: baseline, OWN: sheet}, config).row(OWN)
        assert row is not None
        old, new = accuracies[number]
        rows.append(
            RoundRow(number=number, accuracy_before=old, accuracy=new, win=row.win, scores=row.scores, kl=row.kl)
        )
    return Rounds(confidence=config.confidence, rows=rows)


def accuracy_in(folder: Path) -> float | None:
    """Of a reward model on the validation rankings of its round."""
    found = json.loads((folder / "accuracy.json").read_text(encoding="utf-8")).get("valid", {}).get("accuracy")
    return None if found is None else float(found)


def rounds_figure(rounds: Rounds) -> str:
    """Win rate, KL and the reward models' accuracy over the rounds."""
    figure, (wins, kl, accuracy) = panels_of(3, height=6.0)
    numbers = [row.number for row in rounds.rows]
    for judge in rounds.judges:
        rates = [row.win[judge].bootstrap for row in rounds.rows]
        spread = [[100 * (r.estimate - r.low) for r in rates], [100 * (r.high - r.estimate) for r in rates]]
        shown = [100 * rate.estimate for rate in rates]
        wins.errorbar(numbers, shown, spread, color=JUDGES[judge].color, label=JUDGES[judge].title, capsize=2.5)
    wins.set_ylabel(f"win rate vs SFT, %\n({100 * rounds.confidence:g} % interval)")
    wins.legend(frameon=False, fontsize=7.5)
    measured = [(row.number, row.kl.estimate) for row in rounds.rows if row.kl is not None]
    kl.plot([number for number, _ in measured], [value for _, value in measured], "o-", color="#5f6b76")
    kl.set_ylabel("KL to PPO-init,\nnats a response")
    for field, label, style in (("accuracy_before", "old reward model", "s--"), ("accuracy", "new one", "o-")):
        found = [(row.number, getattr(row, field)) for row in rounds.rows if getattr(row, field) is not None]
        shown = [100 * value for _, value in found]
        accuracy.plot([number for number, _ in found], shown, style, color="#3b7a57", label=label)
    accuracy.set_ylabel("accuracy on the\nround's responses, %")
    accuracy.legend(frameon=False, fontsize=7.5)
    accuracy.set_xticks(numbers)
    accuracy.set_xlabel("round")
    for axes in (wins, kl, accuracy):
        axes.grid(color="#d5dae0", linewidth=0.6)
    return svg_of(figure)
