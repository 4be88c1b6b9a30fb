"""Several labelers in the whole flow: people on a batch, a chat model over HTTP, a function; the run waits for the people."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateName

from flows.process.environment import PROJECT
from flows.rlhf import rlhf
from flows.run.waiting import EXIT_STATUS
from tasks.engine.errors import AwaitingLabels
from tasks.records.comparison_sets import read_comparisons
from tasks.records.labels import Label, LabelBatch, append_label, batch_folder, batches, read_batch
from tests.integration.test_flow import miniature, ran, record_of
from tests.unit.chat.chat_server import serving
from tests.unit.comparisons.labelers.test_chat import longest_first
from tests.unit.tiny_folder import data_folder, model_folder

PLANTED = "tests.unit.comparisons.labelers.planted:by_length"
SMALL = ("comparisons.max_prompts=12", "comparisons.max_valid_prompts=4", "comparisons.agreement_prompts=0")
ALL = (
    "comparisons.labelers=[people,chat,function,simulated]",
    "comparisons.shared_share=0.5",
    "comparisons.chat.model=ranker",
    "comparisons.chat.api_key_env=null",
    f"comparisons.function.name={PLANTED}",
)


def answer(batch: LabelBatch, who: str) -> None:
    """Whoever prefers long responses, on every item."""
    for item in batch.items.values():
        lengths = [len(response) for response in item.responses]
        append_label(
            batch,
            Label(
                item_id=item.item_id,
                labeler=who,
                ranks=[1 + sum(other > length for other in lengths) for length in lengths],
                quality=[4] * len(lengths),
                flags=[[] for _ in lengths],
                skipped=None,
                seconds=2.0,
                time=datetime.now(UTC),
            ),
        )


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_a_run_waits_for_people_and_goes_on_with_their_labels(tmp_path: Path) -> None:
    with serving(longest_first) as server:
        config = miniature(tmp_path, *SMALL, *ALL, f"comparisons.chat.base_url={server.url}")
        with pytest.raises(AwaitingLabels, match=r"(\d+) of \1 labels are missing .*python -m flows.label"):
            rlhf(config)
        assert server.requests == []  # nobody is paid while people are awaited
        with get_client(sync_client=True) as prefect:
            named = FlowRunFilterState(name=FlowRunFilterStateName(any_=["AwaitingLabels"]))
            (flow_run,) = prefect.read_flow_runs(flow_run_filter=FlowRunFilter(state=named))
        assert flow_run.state is not None and flow_run.state.is_failed()
        (batch_id,) = batches(tmp_path)
        batch = read_batch(batch_folder(tmp_path, batch_id))
        answer(batch, "ann")
        outcome = rlhf(config)
        assert not {"data_prep", "pretrain", "sft", "candidates"} & set(ran(outcome))
        assert {"comparisons", "reward_model", "ppo_ptx"} <= set(ran(outcome))
        # A label more makes other comparisons, and the responses stay.
        answer(batch, "bob")
        again = rlhf(config)
        assert "comparisons" in ran(again) and "candidates" not in ran(again)
    sets = read_comparisons(tmp_path / "artifacts" / record_of(again, "comparisons"))
    kinds = {ranking.labeler_id.partition(":")[0].partition("-")[0] for ranking in sets["train"]}
    assert kinds == {"ann", "bob", "chat", "function", "labeler"}
    assert {ranking.labeler_id for ranking in sets["valid_gold"]} == {"gold"}
    run = MlflowClient(config.tracking.uri).get_run(again.run_id)
    page = Path(again.page).read_text(encoding="utf-8")
    # Ann, Bob, the function and the chat model all prefer the longer response.
    assert "Agreement of people with each other" in page and "100.0 [100.0, 100.0] %" in page
    assert "Agreement of people with gold" in page and "Agreement of chat with function" in page
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_own_prompts_without_rankings_are_ranked_by_a_function(tmp_path: Path) -> None:
    data, model = data_folder(tmp_path / "data"), model_folder(tmp_path / "model")
    for path in data.glob("comparisons*"):
        path.unlink()
    words = ["experiment=own_data", "scale=miniature", f"data_prep.folder={data}", f"model.name_or_path={model}"]
    words += [
        "comparisons.source=sample_and_label",
        "comparisons.labelers=[function]",
        f"comparisons.function.name={PLANTED}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "flows.rlhf", *words, f"tracking.root={tmp_path / 'root'}", "runtime.progress=false"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder,) = (tmp_path / "root" / "artifacts" / "comparisons").iterdir()
    sets = read_comparisons(folder)
    assert sorted(sets) == ["train", "valid"]
    for ranking in sets["train"]:
        lengths = [len(text) for text in ranking.completions]
        assert ranking.ranks == [1 + sum(other > length for other in lengths) for length in lengths]


@pytest.mark.slow
def test_the_command_ends_with_a_status_of_its_own_and_one_sentence(tmp_path: Path) -> None:
    words = [
        "scale=miniature",
        "runtime.progress=false",
        f"tracking.root={tmp_path}",
        *SMALL,
        "comparisons.labelers=[people]",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "flows.rlhf", *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == EXIT_STATUS == 4, done.stdout + done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("16 of 16 labels are missing in batch comparisons-")
    assert "Traceback" not in done.stderr
