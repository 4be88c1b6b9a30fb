"""Items and configurations for labelers in tests."""

from typing import Any

from tasks.comparisons.config import ComparisonsConfig
from tasks.comparisons.labelers.labeler import Unranked
from tasks.comparisons.sample import Candidates
from tests.unit import tiny_models as tiny

QUICK = {"base_url": "http://127.0.0.1:1/v1", "model": "ranker", "api_key_env": None, "backoff_seconds": 0.01}


def item(name: str, *responses: str, shared: bool = False, split: str = "train") -> Unranked:
    prompt = tiny.prompts(1)[0].model_copy(update={"prompt_id": name})
    return Unranked(
        f"{split}/{name}", f"what is {name} ?", Candidates(prompt, [*responses], [True] * len(responses)), shared
    )


def config(**changes: Any) -> ComparisonsConfig:
    """``conf/comparisons/sandbox.yaml``; groups are changed key by key."""
    values = tiny.settings("comparisons")
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    return ComparisonsConfig.model_validate(values)
