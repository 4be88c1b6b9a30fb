"""Policies that do not share a tokenizer: what can still be compared, and how a reward model reads another's responses."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from tasks.language.text import encode_prompt, encode_response
from tasks.records.records import Prompt
from tasks.results.judge import Answers, ScoreJudge


def same_vocabulary(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether equal token ids mean equal text to both; only then do log-probabilities of tokens compare."""
    return bool(one.get_vocab() == other.get_vocab()) and one.eos_token_id == other.eos_token_id


class ReadsAnew:
    """A judge that reads texts with its own tokenizer, whoever wrote them.

    Args:
        judge: reads token ids.
        tokenizer: the judge's.
        prompt_tokens: longest prompt, in the judge's tokens.
    """

    def __init__(self, judge: ScoreJudge, tokenizer: PreTrainedTokenizerBase, prompt_tokens: int) -> None:
        self.judge, self.tokenizer, self.prompt_tokens = judge, tokenizer, prompt_tokens
        self.name = judge.name

    def score(self, prompts: Sequence[Prompt], answers: Answers) -> list[float]:
        """The judge's scores of the same texts; a response that was cut off stays without EOS."""
        responses = []
        for prompt, text, finished in zip(prompts, answers.texts, answers.finished, strict=True):
            ids = encode_response(self.tokenizer, text, prompt.text)
            responses.append(ids if finished else ids[:-1] or ids)
        asked = [encode_prompt(self.tokenizer, prompt.text, self.prompt_tokens) for prompt in prompts]
        return self.judge.score(prompts, answers._replace(prompts=asked, tokens=responses))
