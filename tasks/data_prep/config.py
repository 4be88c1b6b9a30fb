"""Stand-in."""

from tasks.config import Config


class SandboxConfig(Config):
    documents: int
    demonstrations: int
    comparison_prompts: int
    rl_prompts: int
    test_prompts: int
    benchmark_items_per_task: int
    toxicity_prompts: int
    held_out_share: float


class DataPrepConfig(Config):
    source: str
    folder: str | None
    sandbox: SandboxConfig
    prompt_tokens: int
    response_tokens: int
    seed: int
