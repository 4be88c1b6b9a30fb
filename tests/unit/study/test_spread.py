from pathlib import Path

import pytest

from flows.study.page import write_page
from flows.study.points import policy_setting
from flows.study.results import Results
from flows.study.spread import spread_of
from tests.unit.study.synthetic import PUBLISHED, study_config, synthetic


def with_rates(rates: dict[int, float]) -> Results:
    results = synthetic(study_config(), PUBLISHED)
    setting = policy_setting(results.config.reference.beta, results.config.reference.gamma)
    records = {}
    for point, record in results._records.items():
        if point.setting == setting and point.seed in rates:
            rate = rates[point.seed]
            more = {
                "policy/win_rate_gold": rate,
                "policy/win_rate_gold_low": rate - 0.03,
                "policy/win_rate_gold_high": rate + 0.05,
            }
            record = record.model_copy(update={"metrics": record.metrics | more})
        records[point] = record
    return Results(results.config, list(records), records)


def test_spread_between_runs_stands_beside_the_interval_over_prompts(tmp_path: Path) -> None:
    results = with_rates({1: 0.60, 2: 0.64, 3: 0.68})
    found = spread_of(results, policy_setting(results.config.reference.beta, results.config.reference.gamma))
    assert found is not None
    assert found.between == pytest.approx(4.0)
    assert found.within == pytest.approx(4.0)
    assert found.runs[0] == (1, "60.0 [57.0, 65.0]")
    written = write_page(tmp_path, results, [], [], [], "python -m flows.study")
    for file in written.files[:2]:
        text = file.read_text()
        assert "the standard deviation is 4.0 points" in text and "64.0 [61.0, 69.0]" in text
        assert "their agreement is a setting, not a finding" in text


def test_one_run_tells_nothing_of_others() -> None:
    results = synthetic(study_config(), PUBLISHED)
    assert spread_of(results, "no such setting") is None
