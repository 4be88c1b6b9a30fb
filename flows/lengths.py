"""Lengths that must fit into what the model reads: all misfits at once, with what to set them to."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.config import RLHFConfig

WITH_SEQUENCES = ("data_prep", "sft", "ppo_init", "comparisons", "reward_model", "ppo", "evaluation")


def misfits(config: "RLHFConfig", context: int) -> str:
    """Which lengths of stages that run are above ``context``, and overrides that put all of them right; "" if none is."""
    found, remedies = [], []
    data = config.data_prep
    half = context // 2
    rivals = [*config.preference_runs, *[name for name in config.sampling_runs if hasattr(config, name)]]
    for name in (*WITH_SEQUENCES, *rivals):
        stage = getattr(config, name)
        if not hasattr(stage, "prompt_tokens"):
            continue
        total = stage.prompt_tokens + stage.response_tokens
        if total > context:
            found.append(
                f"{name}: prompt_tokens ({stage.prompt_tokens}) + response_tokens ({stage.response_tokens}) = {total}"
            )
            own = (stage.prompt_tokens, stage.response_tokens) != (data.prompt_tokens, data.response_tokens)
            if name == "data_prep" or own:  # the others follow data_prep
                remedies += [f"{name}.prompt_tokens={half}", f"{name}.response_tokens={half}"]
    for name, tokens in _rows(config).items():
        if tokens > context:
            found.append(f"{name} is {tokens}")
            remedies.append(f"{name}={context}")
    evaluation = config.evaluation
    if evaluation.context_tokens + evaluation.benchmark_answer_tokens > context:
        found.append(
            f"evaluation.context_tokens ({evaluation.context_tokens}) + benchmark_answer_tokens "
            f"({evaluation.benchmark_answer_tokens}) = {evaluation.context_tokens + evaluation.benchmark_answer_tokens}"
        )
        answer = min(evaluation.benchmark_answer_tokens, half)
        remedies.append(f"evaluation.context_tokens={context - answer}")
        if answer < evaluation.benchmark_answer_tokens:
            remedies.append(f"evaluation.benchmark_answer_tokens={answer}")
    return f"{'; '.join(found)}; set {' '.join(remedies)}" if found else ""


def _rows(config: "RLHFConfig") -> dict[str, int]:
    """Rows of pretraining text that are read. Where the model learns its positions, a longer row ends in an index error;
    elsewhere it is read wrongly."""
    rows = {"pretrain.row_tokens": config.pretrain.row_tokens} if config.pretrain.steps else {}
    for name, knobs in config.fine_tuning_runs.items():
        if knobs.pretraining_fraction > 0:
            rows[f"{name}.row_tokens"] = knobs.row_tokens
    if config.ppo.gamma > 0:
        rows["ppo.ptx_row_tokens"] = config.ppo.ptx_row_tokens
    return rows
