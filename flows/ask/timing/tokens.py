"""How long prompts and responses are, in tokens: of the data, or of what the embedded world writes."""

from statistics import fmean
from typing import NamedTuple

from flows.ask.doctor.patient import Patient
from tasks.data_prep.sources.sandbox import read_sandbox


class Lengths(NamedTuple):
    """Means, in tokens."""

    prompt: float
    response: float
    """EOS included."""
    ranked: float
    """A prompt and one of its ranked responses."""
    completions: float
    """Ranked responses a prompt."""
    asked: float
    """A prompt of PPO."""
    written: float
    """A response that a policy samples: taken to be as long as a demonstration's."""
    tested: int | None = None
    """Test prompts that there are, where that is known."""


def lengths_of(patient: Patient) -> Lengths:
    """Measured on the sample; of the embedded world, on a few of its rows; else half of what is allowed."""
    config, sample = patient.config, patient.sample
    drawn = (config.comparisons.completions_min + config.comparisons.completions_max) / 2
    if config.data_prep.source == "sandbox":
        few = {"documents": 10, "demonstrations": 100, "comparison_prompts": 10, "rl_prompts": 100, "test_prompts": 10}
        world = config.data_prep.sandbox
        assert world is not None
        rows = read_sandbox(world.model_copy(update=few | {"benchmark_items_per_task": 1, "toxicity_prompts": 1}), 1)
        prompt = fmean(len(row.prompt.text.split()) for row in rows.demonstrations)
        response = fmean(len(row.response.split()) + 1 for row in rows.demonstrations)
        return Lengths(prompt, response, prompt + response, drawn, prompt, response)
    if sample is None or not sample.measured.get("demonstrations"):
        prompt, response = config.data_prep.prompt_tokens / 2, config.data_prep.response_tokens / 2
        return Lengths(prompt, response, prompt + response, drawn, prompt, response)
    shown, ranked = sample.measured["demonstrations"], sample.measured.get("comparisons") or []
    asked = sample.measured.get("rl_prompts") or shown
    prompt = fmean(row.prompt for row in shown)
    response = fmean(min(tokens, config.data_prep.response_tokens) for row in shown for tokens in row.responses)
    tested = len(sample.table["test_prompts", "test"]) if sample.whole else None
    pairs: list[float] = [row.prompt + tokens for row in ranked for tokens in row.responses] or [prompt + response]
    count = fmean(len(row.responses) for row in ranked) if ranked else drawn
    mean_asked = fmean(row.prompt for row in asked)
    return Lengths(prompt, response, fmean(pairs), count, mean_asked, response, tested)
