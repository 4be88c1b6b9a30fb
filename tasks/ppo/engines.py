"""Who samples the responses of an iteration: this program's own decoder, or vLLM on a GPU.

vLLM only chooses tokens: the log-probabilities that PPO trains on are recomputed by the trainer's own forward pass, and
what they differ by is logged as drift. Our decoder is the same network in the same process, so that its own numbers may
stand in for that pass (``old_logprobs=sampled``).
"""

import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import ConfigError, TrainingDiverged
from tasks.language.adapters import merged
from tasks.language.logprobs import TokenStatistics
from tasks.language.models import save_policy
from tasks.language.room import sampling_room
from tasks.language.speaker import Speaker
from tasks.ppo.config import PPOConfig

SEEDS_BELOW = 2**31 - 1


class Drawn(NamedTuple):
    """Responses in the order of the prompts, EOS kept, nothing behind it."""

    responses: list[list[int]]
    logprobs: list[list[float]] | None = None
    """What a foreign engine says of each token, at the sampling temperature; None when it says nothing."""
    statistics: TokenStatistics | None = None
    """(B, response_tokens) What PPO is to take for the sampling policy's, 0 behind a response; None recomputes it."""


class RolloutEngine(Protocol):
    """Samples from a policy."""

    def sample(self, policy: PreTrainedModel, prompts: Sequence[list[int]], generator: torch.Generator) -> Drawn:
        """One response a prompt from the policy's present weights; all randomness comes from ``generator``."""
        ...


class OwnEngine:
    """This program's own decoder on the policy itself: nothing is copied, so nothing can drift."""

    def __init__(self, config: PPOConfig, runtime: RuntimeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self._config, self._runtime, self._tokenizer = config, runtime, tokenizer
        self._room = sampling_room()

    def sample(self, policy: PreTrainedModel, prompts: Sequence[list[int]], generator: torch.Generator) -> Drawn:
        """See ``RolloutEngine``."""
        ends = self._config.score_position != "last_position"
        drawn = Speaker(policy, self._tokenizer, self._runtime, ends=ends, room=self._room).sample(
            prompts,
            max_new_tokens=self._config.response_tokens,
            temperature=self._config.temperature,
            generator=generator,
            with_statistics=self._config.old_logprobs == "sampled",
        )
        return Drawn(drawn.responses, statistics=drawn.statistics)


class VLLMEngine:
    """A vLLM engine in this process, beside the trainer on one GPU (extra ``vllm``).

    Weights are handed over before each iteration; between iterations the engine sleeps, so that training has the card's
    memory. Each prompt gets a seed drawn from the stage's generator, so a resumed run asks for the same responses; vLLM
    itself does not promise equal bytes for equal seeds in batches of other shapes.

    Raises:
        ConfigError: vLLM is not installed, or the device is no GPU.
    """

    def __init__(
        self,
        config: PPOConfig,
        runtime: RuntimeConfig,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        eos_id: int | None,
    ) -> None:
        if not runtime.device.startswith("cuda"):
            raise ConfigError(
                f"ppo.rollout_engine is vllm and runtime.device is {runtime.device}, expected a CUDA device; "
                "use runtime=gpu or ppo.rollout_engine=own"
            )
        # In this process: weights are handed over as tensors, not pickled to a worker.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        try:
            import vllm
        except ImportError as error:
            raise ConfigError(
                f"ppo.rollout_engine is vllm, which is not installed ({error}); install it on a GPU machine with "
                "`pip install -e .[vllm]` or use ppo.rollout_engine=own"
            ) from error
        self._config, self._eos, self._params = config, eos_id, vllm.SamplingParams
        with tempfile.TemporaryDirectory() as folder:
            save_policy(policy, tokenizer, folder)
            self._llm: Any = vllm.LLM(
                model=folder,
                skip_tokenizer_init=True,
                dtype="bfloat16" if runtime.precision == "bf16" else "float32",
                max_model_len=config.prompt_tokens + config.response_tokens,
                max_num_seqs=runtime.generation_batch,
                gpu_memory_utilization=config.vllm_memory_share,
                logprobs_mode="processed_logprobs",  # after temperature: what the token was drawn from
                enable_sleep_mode=True,
                seed=config.seed,
            )
        self._llm.sleep(level=2)

    def sample(self, policy: PreTrainedModel, prompts: Sequence[list[int]], generator: torch.Generator) -> Drawn:
        """See ``RolloutEngine``."""
        self._llm.wake_up(tags=["weights"])
        weights = merged(policy).state_dict().items()
        self._llm.apply_model(lambda served: _load(served, weights))
        self._llm.wake_up(tags=["kv_cache"])
        self._llm.reset_prefix_cache()
        seeds = torch.randint(SEEDS_BELOW, (len(prompts),), generator=generator, device=generator.device).tolist()
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [self._sampling(seed) for seed in seeds],
            use_tqdm=False,
        )
        self._llm.sleep(level=2)
        said = [output.outputs[0] for output in outputs]
        responses = [list(one.token_ids) for one in said]
        logprobs = [
            [float(table[token].logprob) for token, table in zip(response, one.logprobs, strict=True)]
            for response, one in zip(responses, said, strict=True)
        ]
        return Drawn(responses, logprobs)

    def _sampling(self, seed: int) -> Any:
        return self._params(
            temperature=self._config.temperature,
            max_tokens=self._config.response_tokens,
            stop_token_ids=[] if self._eos is None else [self._eos],
            ignore_eos=self._eos is None,
            logprobs=0,  # of the drawn token only
            seed=seed,
            detokenize=False,
        )


def _load(served: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    served.load_weights(weights)


def drift(drawn: Drawn, recomputed: Tensor, limit: float | None) -> dict[str, float]:
    """How far an engine's log-probabilities lie from the trainer's.

    Args:
        drawn: what the engine said.
        recomputed: (B, W) fp32, the trainer's, row by row in the same order.
        limit: ``max_logprob_drift``.

    Returns:
        ``rollout/logprob_drift`` and ``rollout/logprob_drift_max``, nats per token; empty when the engine says nothing.

    Raises:
        TrainingDiverged: the mean lies above the limit.
    """
    if drawn.logprobs is None:
        return {}
    trainer = recomputed.tolist()
    gaps = [
        abs(ours - theirs)
        for row, said in zip(trainer, drawn.logprobs, strict=True)
        for ours, theirs in zip(row, said, strict=False)  # a row of the grid is as wide as the longest response
    ]
    mean = sum(gaps) / len(gaps)
    if limit is not None and not mean <= limit:
        raise TrainingDiverged(
            f"ppo.rollout_engine: its log-probabilities lie {mean:.3g} nats per token from the trainer's, expected at most "
            f"ppo.max_logprob_drift ({limit:g}): it samples from other weights, or computes them otherwise; use "
            "ppo.rollout_engine=own, or raise the limit if the difference is one of precision"
        )
    return {"rollout/logprob_drift": mean, "rollout/logprob_drift_max": max(gaps)}
