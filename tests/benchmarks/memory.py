"""`python -m tests.benchmarks.memory`: the forecast of ``--dry-run`` beside the peak that training really has, on a CPU.

Each configuration trains for a few steps in a process of its own, with random weights and made-up rows as long as the
configuration allows. Measured is the highest resident memory (Linux counts it) beyond what the program itself takes before a
model is built.
"""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MIB = 2**20
STEPS = 2
"""The second one has the optimizer's state and gradients at once."""
SHARED = (
    "recipe=paper",
    "model=scratch",
    "pretrain=scratch",
    "data_prep.folder=unread",
    "independent_reward_model=none",
    "model.context_tokens=256",
    "data_prep.prompt_tokens=128",
    "data_prep.response_tokens=128",
    "pretrain.row_tokens=256",
    "ppo_init.row_tokens=256",
    "sft.row_tokens=256",
    "sft.residual_dropout=0",
    "evaluation.context_tokens=128",
    "comparisons.completions_min=4",
    "comparisons.completions_max=4",
    "ppo.episodes=32",
    "ppo.episodes_per_iteration=16",
    "ppo.minibatch_size=8",
    "ppo.ptx_examples_per_episode=1",
    "ppo.ptx_row_tokens=256",
    "ppo.missing_eos=none",
    "runtime.generation_batch=16",
)
"""Of every configuration."""
SMALL = (
    "model.architecture.hidden_size=384",
    "model.architecture.layers=6",
    "model.architecture.intermediate_size=1024",
)
WIDE = (
    "model.architecture.hidden_size=640",
    "model.architecture.layers=3",
    "model.architecture.intermediate_size=1728",
)


class Case(NamedTuple):
    """One row of the table."""

    name: str
    stage: str
    """As the forecast calls it."""
    overrides: tuple[str, ...]


CASES = (
    Case("SFT, 6 layers", "sft", SMALL),
    Case("SFT, 16,000 entries, bf16", "sft", (*WIDE, "model.tokenizer.vocab_size=16000", "runtime.precision=bf16")),
    Case("reward model, 4 responses", "reward_model", (*SMALL, "reward_model.batch_size=4")),
    Case("DPO, 3 wide layers", "dpo", (*WIDE, "train_dpo=true", "dpo.batch_size=4")),
    Case("PPO", "ppo", (*WIDE, "ppo.gamma=0", "ppo_init.pretraining_fraction=0")),
    Case("PPO-ptx, smaller micro-batches", "ppo", (*SMALL, "ppo.gamma=1", "runtime.tokens_per_microbatch=1024")),
)


def main() -> None:
    """Print every configuration, forecast and measured, and the error."""
    if len(sys.argv) > 1:
        print(json.dumps(measured(CASES[int(sys.argv[1])])))
        return
    errors = []
    print(f"{'':<34}{'forecast':>10}{'measured':>10}{'error':>8}   MiB beyond the program itself")
    for place, case in enumerate(CASES):
        found = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.memory", str(place)], capture_output=True, text=True, check=True
        )
        peak, guess = json.loads(found.stdout.splitlines()[-1]), forecast(case)
        errors.append(guess / peak - 1)
        print(f"{case.name:<34}{guess / MIB:>10,.0f}{peak / MIB:>10,.0f}{errors[-1]:>+8.1%}", flush=True)
    print(f"largest error {max(map(abs, errors)):.1%}")


def forecast(case: Case) -> int:
    """What ``--dry-run`` prints as the stage's peak."""
    from flows.ask.arithmetic.memory import stage_memory
    from flows.ask.arithmetic.shapes import shapes_of

    config = _config(case)
    stages = stage_memory(config, shapes_of(config), config.runtime.precision)
    return next(stage.peak for stage in stages if stage.stage == case.stage)


def measured(case: Case) -> int:
    """Bytes at the highest moment of a few steps, less those before."""
    import torch

    config = _config(case)
    torch.set_num_threads(1)
    train = _learner(case, config)  # imports all that training needs
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    train()
    return _status("VmHWM") - before


def _config(case: Case) -> Any:
    from flows.config import load

    return load([*SHARED, *case.overrides])


def _learner(case: Case, config: Any) -> Callable[[], None]:
    import torch

    from tasks.dpo.train import DPOLearner
    from tasks.language.models import ScalarModel, new_causal_lm
    from tasks.ppo.learner import PPOLearner
    from tasks.ppo.rollout import Networks
    from tasks.records.records import Comparison, Demonstration, Document, Prompt
    from tasks.reward_model.train import RewardLearner
    from tasks.sft.train import SFTLearner

    tokenizer = _tokenizer(config.model.tokenizer.vocab_size)

    def text(words: int, seed: int) -> str:
        draws = torch.Generator().manual_seed(seed)
        return " ".join(f"w{place}" for place in torch.randint(500, (words,), generator=draws).tolist())

    def policy(seed: int) -> Any:
        return new_causal_lm(config.model.architecture, tokenizer, config.model.context_tokens, seed)

    def scalar(seed: int) -> ScalarModel:
        return ScalarModel.from_policy(policy(seed), torch.Generator().manual_seed(seed))

    prompts = [Prompt(prompt_id=f"p{i}", owner_id="o", text=text(128, i)) for i in range(64)]
    answers = [text(127, 1_000 + i) for i in range(64)]
    shown = [Demonstration(prompt=prompts[i], response=answers[i], labeler_id="a") for i in range(64)]
    ranked = [
        Comparison(prompt=prompts[i], completions=answers[i : i + 4], ranks=[1, 2, 3, 4], labeler_id="a")
        for i in range(32)
    ]
    documents = [Document(text=text(300, i)) for i in range(64)]

    def train() -> None:
        learner: Any
        if case.stage == "sft":
            learner = SFTLearner(policy(0), shown, [], tokenizer, config.sft, config.runtime)
        elif case.stage == "reward_model":
            learner = RewardLearner(scalar(0), ranked, tokenizer, config.reward_model, config.runtime)
        elif case.stage == "dpo":
            learner = DPOLearner(policy(0), policy(0), ranked, tokenizer, config.dpo, config.runtime)
        else:
            judge = scalar(1)
            networks = Networks(policy(0), policy(0), judge, copy.deepcopy(judge))
            learner = PPOLearner(networks, tokenizer, prompts, documents, config.ppo, config.runtime)
        for _ in range(STEPS):
            learner.step()

    return train


def _tokenizer(entries: int) -> Any:
    """One word an entry."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{place}" for place in range(entries - 3))]
    made = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
