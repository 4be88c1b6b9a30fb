"""One stage on several machines: a Ray cluster of four nodes, each with room for one rank, in processes of this machine."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tasks.engine.errors import ConfigError
from tasks.engine.ranks import here
from tasks.engine.stage import Workshop
from tests.unit.engine import test_gang as scenes
from tests.unit.engine.test_gang import (  # noqa: F401  those with a place are played here too
    Knobs,
    Place,
    alone,
    context,
    largest_difference,
    of,
    test_a_rank_that_hangs_ends_the_stage,
    test_a_rank_that_is_killed_ends_the_stage_in_a_sentence_and_the_next_run_goes_on,
    test_a_stage_that_is_told_to_stop_saves_once_and_another_number_of_ranks_goes_on,
    test_ranks_do_not_outlive_their_stage,
    test_the_peak_of_memory_is_that_of_the_largest_rank,
    test_twenty_kills_of_a_rank_or_of_its_stage_change_no_bit,
    test_two_ranks_make_one_artifact_that_one_process_finds,
    test_what_a_rank_raises_is_raised_by_the_stage,
    whole,
)

pytestmark = pytest.mark.slow
STORE_BYTES = 100 * 2**20
NODES = 4


def train(shop: Workshop, knobs: Knobs) -> Mapping[str, float]:
    """Every rank also tells on which node it is."""
    import ray

    (shop.store.root.parent / f"node-{here().number}").write_text(ray.get_runtime_context().get_node_id(), "utf-8")
    return scenes.train(shop, knobs)


@pytest.fixture(scope="module", autouse=True)
def place() -> Iterator[Place]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else whatever else this machine does comes before the ranks
        node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            for _ in range(NODES - 1):
                cluster.add_node(**node)
            ray.init(address=cluster.address, log_to_driver=False)
            setup = f"import ray; ray.init(address={cluster.address!r}, log_to_driver=False)"
            yield Place("ray", r"rank 1 of 2 \(node [\d.]+\)", r"out of memory, or its machine is lost\?", setup)
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_so_many_nodes_come_to_the_weights_of_one_process(
    alone: Path,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    count: int,
) -> None:
    ref = of(count, context(tmp_path, "ray"), train)
    assert len({(tmp_path / f"node-{number}").read_text("utf-8") for number in range(count)}) == count
    assert caplog.messages.count("said once") == 1
    difference = largest_difference(alone, tmp_path)
    assert difference < 1e-6
    print(f"{count} ranks: {difference:.1e} of the largest weight")
    assert of(1, context(tmp_path)) == ref


def test_more_ranks_than_the_cluster_has_room_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"runtime\.processes 5, but the Ray cluster has 4 CPU on 4 nodes.*processes=4"
    ):
        of(5, context(tmp_path, "ray"))
