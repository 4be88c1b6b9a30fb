from typing import Any

import pytest

from tests.shipped import CONF
from tests.unit.results.sheets import evaluation_config


@pytest.mark.parametrize("name", ["sandbox", "own_data"])
def test_shipped_configurations_are_valid_and_comment_every_key(name: str) -> None:
    assert evaluation_config(name).confidence == 0.95
    lines = (CONF / "evaluation" / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    bare = [line for line in lines if ":" in line and "#" not in line]
    assert set(bare) <= {"seed: ${seed}", "defaults:", "defaults: [own_data, _self_]", "toxicity:"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"best_of_n": [16, 4]}, "rising order"),
        ({"best_of_n": [1]}, "fewer than 2"),
        ({"tie_margin": {"gold": 0.0}}, "expected gold and reward_model"),
        ({"tie_margin": {"gold": -1.0, "reward_model": 0.0}}, "at least 0"),
        ({"confidence": 95}, "less than 1"),
        ({"tempreature": 1.0}, "tempreature"),
    ],
)
def test_values_that_cannot_be_run_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluation_config(**change)
