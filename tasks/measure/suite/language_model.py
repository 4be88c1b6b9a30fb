"""A model in memory as the harness sees one: log-probabilities and greedy text through the project's own batched passes."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from tasks.engine.errors import ConfigError, DataError, ModelError
from tasks.language.batches import TokenBatch
from tasks.language.families import logits_of, trunk_of
from tasks.language.logprobs import log_probs_of, states_before_response
from tasks.language.scorer import read_rows
from tasks.language.seeds import named_generator
from tasks.language.sizes import LOGITS_PER_CHUNK
from tasks.language.speaker import Speaker
from tasks.language.text import encode_prompt
from tasks.measure.benchmarks import Subject
from tasks.measure.suite.scoring import LogProb

BLOCK = 2048
"""Requests tokenized and sorted by length at a time; bounds memory."""
DEFAULT_CONTEXT = 2048
"""For models that name no longest sequence, as the harness assumes."""
DEFAULT_ANSWER_TOKENS = 256
"""For tasks that name no longest answer, as the harness assumes."""
SAMPLING_FILTERS = ("top_p", "top_k", "min_p", "typical_p")
"""They change nothing when the likeliest token is taken."""
ANSWER_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class Continuation(NamedTuple):
    """A context and the continuation to be scored, as tokens."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Decoding(NamedTuple):
    """How an answer is generated; requests that share it run together."""

    until: tuple[str, ...]
    max_new_tokens: int
    temperature: float


class InMemoryModel(LM):  # type: ignore[misc]  # the harness is not typed
    """Scores and answers without a copy of the weights.

    Text is tokenized as the harness does for causal models: the continuation is what the whole text has beyond its context. A
    context that does not fit keeps its end; ``shortened`` counts them by task.
    """

    def __init__(self, subject: Subject, seed: int) -> None:
        super().__init__()
        self._subject = subject
        self._seed = seed
        config = subject.model.config.get_text_config()
        self.context_tokens = int(getattr(config, "max_position_embeddings", None) or DEFAULT_CONTEXT)
        self._start = encode_prompt(subject.tokenizer, "", 1)
        self.shortened: Counter[str] = Counter()

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[LogProb, bool]]:
        """Log-probability of each continuation, and whether greedy decoding says it."""
        found: list[tuple[LogProb, bool]] = []
        for start in range(0, len(requests), BLOCK):
            block = requests[start : start + BLOCK]
            pairs = self._pairs([request.args for request in block])
            found += self._score([self._fit(pair, request) for pair, request in zip(pairs, block, strict=True)])
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability of whole texts; a long one is read in pieces, each token scored once."""
        totals = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self._tokens([text])[0],
                prefix_token=self._empty_context()[0],
                max_seq_len=self.context_tokens,
                context_len=1,
            )
            pairs = [Continuation(tuple(context), tuple(rest)) for context, rest in map(make_disjoint_window, windows)]
            totals.append(float(sum(logprob for logprob, _ in self._score(pairs))))
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Text up to the first stop sequence of its task."""
        answers = [""] * len(requests)
        groups: dict[Decoding, list[int]] = {}
        for row, request in enumerate(requests):
            groups.setdefault(_decoding(request), []).append(row)
        for how, rows in groups.items():
            room = self.context_tokens - how.max_new_tokens
            if room < 1:
                raise ModelError(
                    f"{requests[rows[0]].task_name}: answers of {how.max_new_tokens} tokens leave no room for a question "
                    f"in the model's context of {self.context_tokens}; leave this task out of evaluation.suite.tasks"
                )
            prompts = []
            for row, tokens in zip(rows, self._tokens([requests[row].args[0] for row in rows]), strict=True):
                prompt = self._start + tokens if tokens else self._empty_context()
                self.shortened[requests[row].task_name] += len(prompt) > room
                prompts.append(prompt[-room:])
            for row, text in zip(rows, self._generate(prompts, how), strict=True):
                answers[row] = text
        return answers

    def _generate(self, prompts: list[list[int]], how: Decoding) -> list[str]:
        tokenizer = self._subject.tokenizer
        responses = Speaker(*self._subject).answer(
            prompts,
            max_new_tokens=how.max_new_tokens,
            temperature=how.temperature,
            generator=named_generator(self._seed, "suite", self._subject.model.device),
        )
        texts = [tokenizer.decode(response, skip_special_tokens=True) for response in responses]
        for stop in how.until:
            texts = [text.split(stop, 1)[0] for text in texts]
        return texts

    def _pairs(self, texts: Sequence[tuple[str, str]]) -> list[Continuation]:
        """Tokens of contexts and continuations; every distinct context is tokenized once."""
        moved = [_spaces_moved(context, continuation) for context, continuation in texts]
        contexts = list(dict.fromkeys(context for context, _ in moved if context))
        known = dict(zip(contexts, self._tokens(contexts), strict=True))
        wholes = self._tokens([context + continuation for context, continuation in moved])
        pairs = []
        for (context, _), whole in zip(moved, wholes, strict=True):
            head = known[context] if context else []
            before = self._start + head if head else self._empty_context()
            rest = whole[len(head) :]
            if not head and rest[:1] == before:  # the text brings its own start token
                rest = rest[1:]
            pairs.append(Continuation(tuple(before), tuple(rest)))
        return pairs

    def _fit(self, pair: Continuation, request: Instance) -> Continuation:
        if not pair.continuation:
            raise DataError(
                f"{request.task_name}: item {request.doc_id} has a continuation without a token of its own; correct the row"
            )
        room = self.context_tokens + 1 - len(pair.continuation)  # the last token is never read
        if room < 1:
            raise ModelError(
                f"{request.task_name}: item {request.doc_id} has a continuation of {len(pair.continuation)} tokens, which "
                f"does not fit the model's context of {self.context_tokens}; leave this task out of evaluation.suite.tasks"
            )
        self.shortened[request.task_name] += len(pair.context) > room
        return pair._replace(context=pair.context[-room:])

    def _score(self, pairs: Sequence[Continuation]) -> list[tuple[LogProb, bool]]:
        """Pairs that differ in their last token only, such as the choices Yes and No, share a forward pass."""
        groups: dict[Continuation, list[int]] = {}
        for row, (context, continuation) in enumerate(pairs):
            groups.setdefault(Continuation(context, continuation[:-1]), []).append(row)
        members = list(groups.values())
        shared = [pairs[rows[0]] for rows in members]
        found: list[tuple[LogProb, bool]] = [(LogProb(0.0, 1), True)] * len(pairs)

        def read(numbers: list[int], batch: TokenBatch) -> list[list[tuple[LogProb, bool]]]:
            answers = [[pairs[row] for row in members[number]] for number in numbers]
            scored = iter(self._forward(batch, [shared[number] for number in numbers], answers))
            return [[next(scored) for _ in group] for group in answers]

        contexts, continuations = [pair.context for pair in shared], [pair.continuation for pair in shared]
        model, pad = self._subject.model, int(self._subject.tokenizer.pad_token_id)
        scored = read_rows(contexts, continuations, pad, self._subject.runtime, model.device, read)
        for row, result in zip(chain.from_iterable(members), chain.from_iterable(scored), strict=True):
            found[row] = result
        return found

    def _forward(
        self, batch: TokenBatch, shared: Sequence[Continuation], members: Sequence[Sequence[Continuation]]
    ) -> list[tuple[LogProb, bool]]:
        model, device = self._subject.model, self._subject.model.device
        states, _ = states_before_response(trunk_of(model), batch)  # (N, D), row by row
        answers = [pair for group in members for pair in group]
        places: list[int] = []  # of the states that predict the labels; members of a group look at the same ones
        labels: list[int] = []
        owners: list[int] = []  # which answer a label belongs to
        start = owner = 0
        for pair, group in zip(shared, members, strict=True):
            count = len(pair.continuation)
            for member in group:
                places += range(start, start + count)
                labels += member.continuation
                owners += [owner] * count
                owner += 1
            start += count
        place, label = torch.tensor(places, device=device), torch.tensor(labels, device=device)
        logprobs, greedy = [], []
        step = max(1, LOGITS_PER_CHUNK // model.get_output_embeddings().weight.shape[0])
        for piece in (slice(at, at + step) for at in range(0, len(places), step)):
            logits = logits_of(model, states[place[piece]])
            logprobs.append(log_probs_of(logits, label[piece]).double())
            greedy.append(logits.argmax(dim=-1) == label[piece])
        rows = torch.tensor(owners)
        totals = torch.zeros(len(answers), dtype=torch.float64).index_add_(0, rows, torch.cat(logprobs).cpu())
        misses = torch.zeros(len(answers), dtype=torch.int64).index_add_(0, rows, (~torch.cat(greedy)).long().cpu())
        return [
            (LogProb(total, len(answer.continuation)), missed == 0)
            for total, missed, answer in zip(totals.tolist(), misses.tolist(), answers, strict=True)
        ]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._subject.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _empty_context(self) -> list[int]:
        """What stands before a text that nothing precedes: the start token, or EOS as between packed documents."""
        return self._start or [int(self._subject.tokenizer.eos_token_id)]


def _spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    """Spaces at the end of a context belong to the word that follows."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _decoding(request: Instance) -> Decoding:
    settings = dict(request.args[1])
    until = settings.pop("until", None) or []
    lengths = [settings.pop(name) for name in ANSWER_LENGTHS if settings.get(name) is not None]
    temperature = float(settings.pop("temperature", None) or 0.0)
    if settings.pop("do_sample", None) is False:
        temperature = 0.0
    meant = {name for name in settings if name in ANSWER_LENGTHS or (temperature == 0 and name in SAMPLING_FILTERS)}
    left = {name: value for name, value in settings.items() if value is not None and name not in meant}
    if left:
        raise ConfigError(
            f"{request.task_name}: answers are generated with {left}, expected greedy decoding or a temperature; leave this "
            "task out of evaluation.suite.tasks"
        )
    return Decoding(
        until=(until,) if isinstance(until, str) else tuple(until),
        max_new_tokens=int(lengths[0]) if lengths else DEFAULT_ANSWER_TOKENS,
        temperature=temperature,
    )
