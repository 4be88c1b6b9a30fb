"""The record of one policy's evaluation: plain numbers a later stage can compare without the model.

A sheet is a folder: ``sheet.json`` holds the totals and per-item results, ``samples.jsonl`` one line per test prompt
with every response to it.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.engine.errors import ArtifactError

BASELINE = "sft"
"""Name of the policy that every other is compared with."""
SAMPLED = "sampled"
"""Responses at the configured temperature."""
OPPONENT = "opponent"
"""The baseline's second, independent set of sampled responses: what every sampled policy is compared with."""
GREEDY = "greedy"
"""Responses at temperature 0."""
GOLD = "gold"
"""Judge: the gold labeler of the embedded world."""
REWARD_MODEL = "reward_model"
"""Judge: the reward model, which PPO and best-of-n optimise."""
INDEPENDENT = "independent"
"""Judge: a second reward model, which nobody optimised."""


def best_of(n: int) -> str:
    """Name of the set of responses picked by the reward model out of n."""
    return f"best_of_{n}"


def best_of_how_many(decoding: str) -> int | None:
    """The n of such a name; None for other sets of responses."""
    return int(decoding.rpartition("_")[2]) if decoding.startswith("best_of_") else None


class SheetRecord(BaseModel):
    """Closed, as every record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Response(SheetRecord):
    """One response and what each judge gave it."""

    text: str
    finished: bool
    """Ended with EOS, not cut at response_tokens."""
    tokens: int
    """Length, EOS included."""
    scores: dict[str, float]
    """By judge: gold (only in the embedded world), reward_model, and independent where there is one."""


class PromptSamples(SheetRecord):
    """Everything a policy said to one test prompt."""

    prompt_id: str
    kind: str
    held_out: bool
    """About an entity that no tuning prompt mentions."""
    repeats: bool = False
    """A training prompt makes the same request behind another opening."""
    prompt: str
    owner: str = ""
    """Who wrote it; prompts of one owner are not independent of each other."""
    responses: dict[str, Response]
    """By decoding: sampled, greedy, and for the baseline opponent and best_of_n."""


class TaskResult(SheetRecord):
    """One benchmark task, item by item."""

    item_ids: list[str]
    correct: list[float]
    """In the order of item_ids: 1 or 0, or a score in [0, 1] such as F1."""
    metric: str = "accuracy"
    """What the score is: accuracy, f1, rouge_l, bleu, or a metric of the harness."""
    shots: int = 0
    """Examples before each question."""
    shortened: int = 0
    """Prompts that lost their beginning because they did not fit the model's context."""
    bleu_counts: list[list[int]] = []
    """Metric bleu: what each item adds to the corpus figure; empty for the other metrics, which are means."""


class DocumentLoss(SheetRecord):
    """Language modelling on held-out pretraining documents."""

    nll: list[float]
    """Negative log-likelihood of each document, nats."""
    tokens: list[int]
    """Predicted tokens of each document."""


class Toxicity(SheetRecord):
    """Toxicity of sampled continuations of bait prompts without an instruction before them."""

    scorer: str
    """Who scored; figures of different scorers are not comparable."""
    layout: str
    """How the prompts were laid out."""
    scores: list[float]
    """One in [0, 1] per prompt."""


class Truthfulness(SheetRecord):
    """Answers to questions about which people hold myths, one entry a question."""

    true: list[int]
    informative: list[int]
    held_out: list[int]


class SafetyScores(SheetRecord):
    """One safety measure, item by item."""

    measure: str
    """What was measured: toxicity, bias entropy (Winogender), truthful (MC1), ..."""
    layout: str
    """How the prompt was laid out, exactly."""
    scorer: str | None
    """Who scored the text; None when the model's own probabilities are the measure."""
    unit: str
    """share, bits, probability, or points."""
    metric: str = ""
    """Its name in MLflow, with ``{policy}`` in the policy's place; empty where the figure is on the page alone."""
    interval: Literal["bootstrap", "wilson"] = "bootstrap"
    """How the mean's interval is found."""
    values: list[float]


class BestOfPoint(SheetRecord):
    """One point of the best-of-n curve, by the unbiased estimator over all candidates."""

    n: int
    kl: float
    """Upper bound, log n - (n - 1) / n."""
    scores: dict[str, float]
    """Mean score of the pick, by judge."""


class PolicySheet(SheetRecord):
    """One policy, measured."""

    name: str
    temperature: float
    kl: list[float] | None
    """Summed log-ratio to the reference on each sampled response, nats: unbiased for the KL; None without a reference that
    has the policy's vocabulary."""
    examples_before: list[int] = []
    """How many examples came before each test prompt; empty for a policy that is asked without."""
    benchmarks: dict[str, TaskResult]
    documents: DocumentLoss | None
    toxicity: Toxicity | None
    truthfulness: dict[str, Truthfulness]
    """By decoding; empty without a world that knows the truth."""
    safety: list[SafetyScores] = []
    """Toxicity by prompt type, truthfulness, bias; each with its scorer and layout."""
    best_of_curve: list[BestOfPoint]
    samples: list[PromptSamples] = Field(exclude=True)
    """Written to samples.jsonl."""

    def judges(self) -> set[str]:
        """Judges that scored this policy."""
        return set(self.samples[0].responses[SAMPLED].scores)

    def responses(self, decoding: str) -> list[Response]:
        """Responses of one decoding, in prompt order; only the prompts that have it."""
        return [row.responses[decoding] for row in self.samples if decoding in row.responses]

    def decodings(self) -> list[str]:
        """Every set of responses, in a fixed order."""
        return list(self.samples[0].responses)


def write_sheet(sheet: PolicySheet, folder: Path) -> None:
    """Write ``sheet.json`` and ``samples.jsonl`` into an existing folder."""
    (folder / "sheet.json").write_text(sheet.model_dump_json(indent=1) + "\n", encoding="utf-8")
    lines = [row.model_dump_json() + "\n" for row in sheet.samples]
    (folder / "samples.jsonl").write_text("".join(lines), encoding="utf-8")


def read_sheet(folder: Path) -> PolicySheet:
    """Read what :func:`write_sheet` wrote."""
    try:
        totals = json.loads((folder / "sheet.json").read_text(encoding="utf-8"))
        lines = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")
        sheet = PolicySheet.model_validate({**totals, "samples": [json.loads(line) for line in lines if line]})
    except OSError as error:
        raise ArtifactError(f"{folder}: no evaluation sheet ({error.strerror}: {error.filename})") from error
    except (ValidationError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{folder}: damaged evaluation sheet ({error}); evaluate the policy again") from error
    if not sheet.samples:
        raise ArtifactError(f"{folder / 'samples.jsonl'}: holds no prompt; evaluate the policy again")
    return sheet
