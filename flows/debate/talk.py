"""A chat model debates pairs that people have judged, before a chat model."""

from collections.abc import Sequence
from pathlib import Path

from flows.debate.config import ChatDebatersConfig, DebateConfig
from tasks.chat.endpoint import messages_of
from tasks.chat.model import ChatModel, answer_cache
from tasks.compare.judges.agreement import majority
from tasks.compare.judges.annotated import read_annotated
from tasks.compare.judges.chat import ChatJudge
from tasks.engine.errors import DataError, JudgeError
from tasks.results.debate import Argue, Setting, Side
from tasks.results.judge import CHAT


def model_argues(model: ChatModel[Side], config: ChatDebatersConfig) -> Argue:
    """One chat model argues for whichever side it is given; an argument that is missing ends with a sentence."""

    def lost(count: int) -> JudgeError:
        reasons = ", ".join(f"{reason} {times} times" for reason, times in model.failures.most_common())
        return JudgeError(
            f"debaters: {count} of the sides are left without an argument ({reasons}), expected one for each; look at the "
            f"endpoint {config.base_url}. Arguments that were given are kept on disk, so the next run asks only for the others"
        )

    def argue(sides: Sequence[Side]) -> list[str]:
        asked = {side: messages_of(config.system, side.filled(config.template)) for side in sides}
        answers = model.ask(asked, lambda _, text: bool(text.strip()), lost)
        return [answer.text.strip() for side in sides if (answer := answers[side]) is not None]

    return argue


def of_pairs(config: DebateConfig) -> Setting:
    """Pairs of a file on which a majority of people prefers one response.

    Raises:
        PlumblineError: no such pair, or a model that does not answer.
    """
    assert config.pairs and config.debaters and config.evaluation and config.evaluation.judges.chat, "parsed"
    found = [(item.pair, majority(list(item.labels.values()))) for item in read_annotated(Path(config.pairs))]
    decided = [(pair, label) for pair, label in found if label and pair.response != pair.opponent]
    if not decided:
        raise DataError(f"pairs: {config.pairs} has {len(found)} pairs, expected one at least that a majority decides")
    kept, asked = answer_cache(config.tracking.folder), config.evaluation.judges.chat
    judge = ChatJudge(CHAT, asked.model_copy(update={"pairs_per_row": len(decided)}), kept)
    debater: ChatModel[Side] = ChatModel(config.debaters, kept, "debaters", "debate on the embedded world: run=...")
    judge.check()
    debater.check()
    pairs, truth = [pair for pair, _ in decided], [label for _, label in decided]
    return Setting(
        pairs, truth, judge, {f"{config.debaters.model} argues": model_argues(debater, config.debaters)}, None
    )
