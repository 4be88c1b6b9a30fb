"""The embedded world's labelers as a crowd at the labelling page: the policy wins as often as when they are asked directly."""

import random
import re
import threading
import time
from pathlib import Path

import httpx
import pytest

from flows.config import RLHFConfig, load
from flows.label.desk import shown_order
from flows.label.tokens import Labelers
from flows.rlhf import rlhf
from tasks.engine.errors import AwaitingLabels
from tasks.records.comparison_sets import read_comparisons
from tasks.records.labels import LabelBatch, batch_folder, batches, progress, read_batch, read_labels
from tasks.sandbox.labelers import Panel, Simulated
from tasks.sandbox.world import World
from tests.integration.test_flow import ran, record_of
from tests.unit.label.server import running

SMALLER = (  # than the sandbox: a quarter of the text, of the rankings and of PPO
    "data_prep.sandbox.documents=50000",
    "data_prep.sandbox.demonstrations=1000",
    "data_prep.sandbox.comparison_prompts=1600",
    "pretrain.steps=1000",
    "sft.epochs=3",
    "comparisons.completions_max=6",
    "comparisons.max_valid_prompts=100",
    "comparisons.agreement_prompts=0",
    "independent_reward_model=none",
    "ppo.episodes=4096",
    "evaluation.best_of_n=[]",
    "evaluation.gate.min_win_rate=null",
    "evaluation.gate.min_win_rate_low=null",
    "evaluation.gate.max_regression_vs_sft=null",
    "evaluation.gate.max_regression_vs_base=null",
    "evaluation.gate.max_toxicity_change=null",
    "evaluation.gate.model_name=null",
    "runtime.progress=false",
)


def smaller(root: Path, *overrides: str) -> RLHFConfig:
    return load([*SMALLER, f"tracking.root={root}", *overrides])


class Worker(threading.Thread):
    """One of the embedded world's labelers, who answers what the page shows until nothing is left."""

    def __init__(self, base: str, token: str, labeler: Simulated, batch: LabelBatch) -> None:
        super().__init__()
        self.base, self.token, self.labeler = base, token, labeler
        self.items = list(batch.items.values())

    def run(self) -> None:
        with httpx.Client(base_url=self.base, follow_redirects=True, timeout=120) as http:
            page = http.get("/enter", params={"token": self.token})
            while signed := re.search(r'name="form" value="([^"]+)"', page.text):
                item = self.items[int(page.url.path.rpartition("/")[2]) - 1]
                noise = random.Random(f"{self.labeler.labeler_id}/{item.item_id}")
                finished = item.origin.finished or [True] * len(item.responses)
                ranks = self.labeler.rank(item.origin.prompt, item.responses, finished, noise)
                fields = {"form": signed[1]}
                for place, which in enumerate(shown_order(self.labeler.labeler_id, item)):
                    fields |= {f"rank-{place}": str(ranks[which]), f"quality-{place}": "4"}
                page = http.post(page.url.path, data=fields)
                assert page.status_code == 200, page.text


def label_everything(home: Path, batch: LabelBatch, panel: Panel) -> float:
    """The crowd answers the batch; how many seconds it took."""
    start = time.monotonic()
    with running(home) as base:
        crowd = [Worker(base, Labelers(home).add(one.labeler_id), one, batch) for one in panel.training]
        for worker in crowd:
            worker.start()
        for worker in crowd:
            worker.join()
    return time.monotonic() - start


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_a_crowd_at_the_page_is_worth_the_embedded_labelers(tmp_path: Path) -> None:
    embedded = rlhf(smaller(tmp_path, "comparisons.labelers=[simulated]"))
    at_the_page = smaller(tmp_path, "comparisons.labelers=[people]", "comparisons.shared_share=0")
    with pytest.raises(AwaitingLabels):
        rlhf(at_the_page)
    (batch_id,) = batches(tmp_path)
    batch = read_batch(batch_folder(tmp_path, batch_id))
    world = World.read(tmp_path / "artifacts" / record_of(embedded, "data_prep"))
    seconds = label_everything(tmp_path, batch, Panel.of(world, at_the_page.comparisons.seed))
    assert progress(batch, read_labels(batch)).missing == 0
    crowd = rlhf(at_the_page)
    assert "sft" not in ran(crowd) and "reward_model" in ran(crowd)

    # Both learned from rankings of the same responses, as many, and not from the same rankings.
    first, second = (
        read_comparisons(tmp_path / "artifacts" / record_of(of, "comparisons"))["train"] for of in (embedded, crowd)
    )
    assert [one.completions for one in first] == [one.completions for one in second]
    assert len({one.labeler_id for one in second}) == 5 and [one.ranks for one in first] != [
        one.ranks for one in second
    ]

    rows = [of.comparison.row("ppo_ptx") for of in (embedded, crowd)]
    wins = [row.win["gold"] for row in rows if row is not None]
    for name, win in zip(("embedded", "at the page"), wins, strict=True):
        print(f"{name}: gold win rate against SFT {win.rate:.3f} [{win.bootstrap.low:.3f}, {win.bootstrap.high:.3f}]")
    print(f"{len(batch.items)} items labelled over HTTP in {seconds:.0f} s")
    assert wins[0].bootstrap.low > 0.5, "what is learned from the embedded labelers does not show at this size"
    assert wins[0].bootstrap.low <= wins[1].rate <= wins[0].bootstrap.high
