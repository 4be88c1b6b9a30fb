"""`python -m flows.layouts`: memory and time of policies of 1.3B, 7B and 70B beside a 6B reward model on 1, 8 and 64 GPUs.

The arithmetic is that of ``--dry-run``, on the paper's recipe in bf16 with layers computed again in the backward pass; nothing is
trained, and no GPU is needed. Times are those of the whole recipe, one stage at a time, by the data sheet of the card that
``dry_run`` declares.
"""

from typing import NamedTuple

from flows.ask.arithmetic.memory import GIB, StageMemory, stage_memory
from flows.ask.arithmetic.shapes import shapes_of
from flows.ask.doctor.patient import Patient
from flows.ask.timing.page import card_rates, show, stages_of
from flows.ask.timing.tokens import lengths_of
from flows.config import RLHFConfig, load
from flows.parser import Parser

WIDE = ["dry_run.policy.n_layer=86", "dry_run.policy.n_embd=8192", "dry_run.policy.n_head=64"]
POLICIES = {
    "1.3B": ["experiment=instructgpt_1_3b"],
    "7B": ["experiment=instructgpt_6b"],
    "70B": ["experiment=instructgpt_6b", *WIDE],
}
"""GPT-3's shape at 1.3B and 6.7B, and one of 86 layers of width 8,192."""
RECOMPUTED = "runtime.gradient_checkpointing=true"
FEW_ROWS = "runtime.generation_batch=16"
"""Sampled side by side: their keys and values are the largest part of PPO at 2,048 tokens."""
HALF = "runtime.frozen_precision=bf16"
ONE_STAGE = "runtime.max_workers=1"
"""At a time, since each takes every GPU that there is."""


class CardLayout(NamedTuple):
    """One way to put a run on GPUs."""

    name: str
    gpus: int
    overrides: list[str]


LAYOUTS = [
    CardLayout("all weights on each", 1, []),
    CardLayout("all weights on each, frozen ones bf16", 1, [HALF]),
    CardLayout("adapters, frozen weights bf16", 1, ["adapter=lora", HALF]),
    CardLayout("sharded", 8, ["runtime.processes=8", "runtime.shard=full"]),
    CardLayout("sharded, frozen ones bf16", 8, ["runtime.processes=8", "runtime.shard=full", HALF]),
    CardLayout("sharded, frozen ones bf16", 64, ["runtime.processes=64", "runtime.shard=full", HALF]),
]


def config_of(policy: str, layout: CardLayout) -> RLHFConfig:
    """The run in question."""
    return load([*POLICIES[policy], RECOMPUTED, FEW_ROWS, ONE_STAGE, *layout.overrides])


def tightest(config: RLHFConfig) -> StageMemory:
    """The stage that needs most on one GPU."""
    return max(stage_memory(config, shapes_of(config), "bf16"), key=lambda stage: stage.peak)


def seconds(config: RLHFConfig) -> float:
    """From the first stage to the end of the last."""
    patient, shapes = Patient(config), shapes_of(config)
    return max(stage.ends for stage in stages_of(patient, shapes, lengths_of(patient), card_rates(config, shapes)))


def cell(found: StageMemory, card: float, time: float) -> str:
    """GiB on each GPU, the stage that takes them, and the time; what does not fit is marked, and takes none."""
    text = f"{found.peak / GIB:,.0f} ({found.stage})"
    return f"{text}, {show(time)}" if found.peak <= card * GIB else f"{text} does not fit"


def table() -> str:
    """In Markdown, a row for each layout."""
    rows = [["GPUs", "networks in training", *POLICIES], ["--:", "---", *("---" for _ in POLICIES)]]
    for layout in LAYOUTS:
        configs = [config_of(policy, layout) for policy in POLICIES]
        found = [cell(tightest(config), config.dry_run.card_gib, seconds(config)) for config in configs]
        rows.append([str(layout.gpus), layout.name, *found])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Command line."""
    Parser(prog="python -m flows.layouts", description=(__doc__ or "").splitlines()[0]).parse_args()
    print(table())


if __name__ == "__main__":
    main()
