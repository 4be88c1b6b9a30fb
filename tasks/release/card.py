"""The model card: Markdown with YAML front matter that the Hugging Face hub reads.

Every sentence follows from an artifact or from the configuration; nothing depends on a clock, a path or a machine.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from tasks.release.config import ReleaseJob
from tasks.results.comparison import PolicyComparison, title_of
from tasks.results.decision import GateDecision
from tasks.results.judges import JUDGES
from tasks.results.table import markdown_table
from tasks.results.verdict import percent

SETTINGS = "plumbline.yaml"
DATASET = "test prompts"
KNOBS = (
    "seed",
    "sft.adam.learning_rate",
    "sft.epochs",
    "sft.batch_size",
    "ppo_init.adam.learning_rate",
    "ppo_init.epochs",
    "ppo_init.pretraining_fraction",
    "reward_model.adam.learning_rate",
    "reward_model.epochs",
    "reward_model.batch_size",
    "ppo.beta",
    "ppo.gamma",
    "ppo.episodes",
    "ppo.episodes_per_iteration",
    "ppo.minibatch_size",
    "ppo.inner_epochs",
    "ppo.policy_adam.learning_rate",
    "ppo.value_adam.learning_rate",
    "ppo.policy_clip",
    "ppo.temperature",
    "ppo.ema_decay",
)
"""Values worth a line; the rest is in the settings file."""


class CardInputs(NamedTuple):
    """What a card is written from."""

    policy: str
    """In metric names: ppo_ptx."""
    job: ReleaseJob
    comparison: PolicyComparison
    decision: GateDecision
    audit: Mapping[str, Any]
    """``audit.json`` of data preparation."""
    warnings: list[str]
    """Reasons of the sentinel's warnings."""
    digests: Mapping[str, str]
    """Artifact -> SHA-256."""
    weights: Mapping[str, str]
    """File of the model folder -> SHA-256."""


def model_card(inputs: CardInputs) -> str:
    """The whole ``README.md``."""
    data = ModelCardData(
        model_name=inputs.job.title,
        base_model=inputs.job.base_model or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["rlhf", "instructgpt", inputs.policy.replace("_", "-"), "plumbline"],
        eval_results=_eval_results(inputs),
    )
    sections = [
        f"# {inputs.job.title}",
        *_method(inputs),
        "## Data\n\n" + _data(inputs.audit),
        "## Hyper-parameters\n\n" + _knobs(inputs.job.settings) + f"\n\nEvery other value is in `{SETTINGS}`.",
        "## Evaluation\n\n" + markdown_table(inputs.comparison).strip(),
        _gate(inputs.decision),
        "## Limitations\n\n" + "\n".join(f"- {line}" for line in _limitations(inputs)),
        "## Where it comes from\n\n" + _digests(inputs),
        "## Again\n\n"
        f"```\npython -m flows.rlhf --config-dir <this folder> --config-name {SETTINGS.removesuffix('.yaml')}\n```\n\n"
        "trains the same policy; on CPU, with the same versions of the libraries, its weights have the digests above.",
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"))


def _eval_results(inputs: CardInputs) -> list[EvalResult]:
    """The win rates of the policy, for the hub's table."""
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="held-out",
            dataset_name=DATASET,
            metric_type="win_rate",
            metric_name=f"win rate against {row.against}, {JUDGES[judge].title}",
            metric_value=round(100 * ruling.win.rate, 2),
        )
        for row in inputs.comparison.rows
        if row.policy == inputs.policy
        for judge, ruling in row.rulings.items()
    ]


def _method(inputs: CardInputs) -> list[str]:
    start = f"`{inputs.job.base_model}`" if inputs.job.base_model else "a base model of its own (digest below)"
    gamma = inputs.job.settings["ppo"]["gamma"] if inputs.policy != "ppo" else 0
    kind = "PPO-ptx: PPO with pretraining gradients" if gamma else "PPO"
    return [
        "## Method\n\n"
        "InstructGPT ([Ouyang et al. 2022](https://arxiv.org/abs/2203.02155)): supervised fine-tuning on demonstrations, a "
        f"reward model on rankings, and {kind} against that reward model, held near its start by a KL penalty. It started from "
        f"{start}. The weights are an exponential moving average of the trained ones.\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'policy, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")\n```'
    ]


def _data(audit: Mapping[str, Any]) -> str:
    lines = ["| role | split | read | kept |", "|---|---|---|---|"]
    lines += [
        f"| {row['role']} | {row['split']} | {row['read']} | {row['kept']} |" for row in audit["rows"] if row["read"]
    ]
    return f"Source: {audit['source']}.\n\n" + "\n".join(lines)


def _knobs(settings: Mapping[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for path in KNOBS:
        value: Any = settings
        for part in path.split("."):
            value = value[part]
        lines.append(f"| `{path}` | {value} |")
    return "\n".join(lines)


def _gate(decision: GateDecision) -> str:
    if not decision.checks:
        return "No budget was declared for its promotion."
    lines = [f"- {check.reason}" for check in decision.checks]
    return "It was promoted because it kept this budget:\n\n" + "\n".join(lines)


def _limitations(inputs: CardInputs) -> list[str]:
    row = inputs.comparison.row(inputs.policy)
    found = [f"Warning during PPO: {reason}." for reason in inputs.warnings]
    if row is not None and row.eos_rate < 1.0:
        found.append(f"{percent(1.0 - row.eos_rate)} of its sampled responses run into the length limit.")
    scorer = inputs.comparison.toxicity_scorer
    found.append(f"Toxicity was scored by {scorer} alone, on bait prompts." if scorer else "Toxicity was not measured.")
    found.append(
        f"{title_of(inputs.policy)} follows the people who wrote the demonstrations and the rankings, and was measured on "
        "prompts like theirs; nothing here says how it behaves elsewhere."
    )
    return found


def _digests(inputs: CardInputs) -> str:
    lines = ["| | SHA-256 |", "|---|---|"]
    lines += [f"| `{name}` | `{digest}` |" for name, digest in sorted(inputs.weights.items())]
    lines += [f"| artifact {name} | `{digest}` |" for name, digest in inputs.digests.items()]
    return "\n".join(lines)
