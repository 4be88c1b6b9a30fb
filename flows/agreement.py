"""How far a judge agrees with people: `python -m flows.agreement pairs.jsonl --judge longer`.

Reads pairs that several people have judged, asks a judge about each in both orders, and prints its agreement with every
person and with the majority, beside the agreement of people with each other, which no judge should be asked to exceed by
much. `longer` reads nothing and prefers the longer response: a judge that does no better than it is not worth asking.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from flows.config import load
from flows.parser import Parser
from flows.process import environment  # noqa: F401  first: sets where the answers lie
from flows.terminal import console
from tasks.chat.model import answer_cache
from tasks.compare.judges.agreement import Agreement
from tasks.compare.judges.annotated import JudgeAgreement, longer_response, measure, read_annotated
from tasks.compare.judges.chat import ChatJudge
from tasks.engine.errors import PlumblineError
from tasks.results.judge import CHAT, Pair, PairJudge, PairVerdicts, judge_both_orders
from tasks.results.verdict import bias, percent_interval
from tasks.results.win_rate import Resampling


class LongerResponse:
    """Prefers the longer response."""

    name = "longer response"

    def judge(self, pairs: Sequence[Pair]) -> PairVerdicts:
        """Decide every pair."""
        return judge_both_orders(self.name, longer_response, pairs)


def agreement_table(found: JudgeAgreement, judge: str) -> Table:
    """The figures in about 100 columns."""
    table = Table(title="Agreement", title_justify="left", title_style="bold", pad_edge=False)
    for heading in ("", "pairs", "equal labels, ties included", "n", "without ties", "n", "alpha"):
        table.add_column(heading, justify="left" if not heading else "right")
    for title, row in (
        ("people with each other", found.people),
        (f"{judge} with each person", found.each),
        (f"{judge} with the majority", found.majority),
    ):
        table.add_row(title, str(row.items), *_cells(row))
    return table


def _cells(row: Agreement) -> list[str]:
    return [
        percent_interval(row.exact) if row.exact else "-",
        str(row.comparisons),
        percent_interval(row.decisive) if row.decisive else "-",
        str(row.decisive_comparisons),
        f"{row.alpha:.2f}" if row.alpha is not None else "-",
    ]


def main() -> None:
    """Command line."""
    parser = Parser(prog="python -m flows.agreement", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSONL of pairs with labels, plain or gzipped")
    parser.add_argument("--judge", choices=("longer", "chat"), default="longer")
    parser.add_argument("overrides", nargs="*", help="for chat: evaluation.judges.chat.model=... and the like")
    given = parser.parse_intermixed_args()
    try:
        items = read_annotated(given.file)
        chosen = ["evaluation/judges=chat"] if given.judge == "chat" else []
        config = load([*chosen, *given.overrides])
        judge: PairJudge = LongerResponse()
        if config.evaluation.judges.chat is not None and given.judge == "chat":
            asked = config.evaluation.judges.chat.model_copy(update={"pairs_per_row": len(items)})
            judge = ChatJudge(CHAT, asked, answer_cache(config.tracking.folder))
        how = Resampling(config.evaluation.confidence, config.evaluation.bootstrap_samples, config.seed)
        found = measure(judge, items, how.named("agreement"))
    except PlumblineError as error:
        sys.exit(f"error: {error}")
    screen = console()
    screen.print(agreement_table(found, "longer response" if given.judge == "longer" else "chat model"))
    orders = found.orders
    screen.print(
        f"{orders.pairs} pairs: {orders.inconsistent} changed their winner with the order, position bias "
        f"{bias(orders.position_bias)}, {orders.tied_verdicts} of {orders.verdicts} verdicts are ties, "
        f"{orders.unjudged} pairs have no verdict",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
