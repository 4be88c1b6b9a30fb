"""Does debate help a judge? `python -m flows.debate run=<MLflow run id>`, or `pairs=FILE` with chat models.

Two sides argue for two responses to the same prompt, and a judge who knows less than they do chooses, with and without what they
say, in both orders. Prints the accuracy of both, what the arguments changed, and a conclusion by a rule that was fixed before.
"""

import json
import math
import sys
from functools import partial
from pathlib import Path

from rich.table import Table

from flows.debate.config import parse_debate
from flows.debate.talk import of_pairs
from flows.debate.world import of_run
from flows.parser import Parser
from flows.process import environment  # noqa: F401  first: sets where the databases lie
from flows.terminal import console
from tasks.engine.errors import ConfigError, PlumblineError
from tasks.results.debate import DebateEffect, conclusion, hold, weigh
from tasks.results.judge import OrderEffects, Pair
from tasks.results.verdict import bias, percent_interval, points
from tasks.results.win_rate import Resampling


def effects_table(effects: dict[str, DebateEffect]) -> Table:
    """The figures in about 110 columns."""
    table = Table(title="Debate", title_justify="left", title_style="bold", pad_edge=False)
    for heading in ("", "pairs", "right alone", "right with debate", "gain, points", "better", "worse"):
        table.add_column(heading, justify="right" if heading else "left")
    for title, found in effects.items():
        shares = [percent_interval(share) for share in (found.alone, found.debated)]
        changed = [f"{100 * share.estimate:.1f} %" for share in (found.better, found.worse)]
        table.add_row(title, str(found.pairs), *shares, points(found.gain), *changed)
    return table


def transcript(title: str, told: Pair, truth: int, alone: float, debated: float) -> str:
    """One debate as a line of JSON: both cases, the better one (1 the first, -1 the second), and how far the judge preferred the
    first without and with arguments, from 0 to 1; null without a verdict."""
    verdicts = {name: None if math.isnan(one) else one for name, one in (("alone", alone), ("debated", debated))}
    row = {"debaters": title, "prompt": told.prompt, "first": told.response, "second": told.opponent, "better": truth}
    return json.dumps(row | verdicts, ensure_ascii=False)


def main(typed: list[str]) -> None:
    """Command line."""
    parser = Parser(prog="python -m flows.debate", description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="+", metavar="run=...|pairs=...", help="and values of conf/debate.yaml")
    screen, lines, orders, effects = console(), list[str](), dict[str, OrderEffects](), dict[str, DebateEffect]()
    try:
        config = parse_debate(parser.parse_args(typed).settings)
        file = Path(config.transcripts).expanduser() if config.transcripts else None
        if file is not None and (file.exists() or not file.parent.is_dir()):
            raise ConfigError(f"transcripts: {file} exists, or its folder does not; give the name of a new file")
        pairs, truth, judge, debaters, control = of_run(config) if config.run else of_pairs(config)
        how = Resampling(config.confidence, config.bootstrap_samples, config.seed)
        alone, orders["alone"] = judge.judge(pairs)
        for title, argue in debaters.items():
            told = hold(pairs, argue, config.rounds)
            debated, orders[title] = judge.judge(told)
            effects[title] = weigh(truth, alone, debated, how.named("debate", title))
            lines += map(partial(transcript, title), told, truth, alone.tolist(), debated.tolist())
        if file is not None:
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except PlumblineError as error:
        sys.exit(f"error: {error}")
    screen.print(effects_table(effects))
    for title, one in orders.items():
        screen.print(
            f"{title}: {one.inconsistent} of {one.pairs} pairs changed their winner with the order, position bias "
            f"{bias(one.position_bias)}, {one.unjudged} have no verdict",
            soft_wrap=True,
        )
    screen.print(conclusion(next(iter(effects.values())), effects.get(control or "")), style="bold", soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
