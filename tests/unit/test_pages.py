"""Ports of the pages, and what MLflow's opens at."""

from pathlib import Path

import pytest

from flows.config import load
from flows.pages import check_port, runs
from tasks.engine.errors import ConfigError


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=rf"--port: found {port}, expected 1 to 65535"):
        check_port(port)


def test_mlflow_s_page_opens_at_the_runs_in_the_view_for_training(tmp_path: Path) -> None:
    overrides = [f"tracking.root={tmp_path}", "tracking.experiment=mine"]
    assert runs(overrides) == ""
    load([overrides[0]]).tracking.prepare()
    made = load(overrides).tracking.prepare()
    assert runs(overrides) == f"#/experiments/{made}/runs?workflowType=machine_learning" and made == "2"
