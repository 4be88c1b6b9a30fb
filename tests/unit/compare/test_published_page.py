"""The published page: the cached report with the run's own parts, escaped, in their places."""

from flows.run.curves import over_iterations
from flows.run.page import RunFacts, published
from flows.run.reproduce import told_apart
from tasks.compare.plots import WINDOWS, windows
from tasks.results.decision import GateCheck, GateDecision
from tests.unit.compare.test_report import ATTACK, HISTORY, Outline, render
from tests.unit.results.sheets import trio

GATE = GateDecision(
    policy="ppo_ptx",
    passed=False,
    checks=[GateCheck(limit_name="a", metric="m", found=0.4, limit=0.5, passed=False, reason=f"too low {ATTACK}")],
)


def facts(agreement_is_set: bool = True) -> RunFacts:
    return RunFacts(
        when="2030-01-02 03:04 UTC",
        link="http://127.0.0.1:5000/#/experiments/1/runs/2",
        gate=GATE,
        warnings=[f"KL doubles {ATTACK}"],
        data=[("rl_prompts", "1,000", "900", "too_long 100")],
        figures=[("Reward model: accuracy on held-out comparisons", "65.1 %")],
        agreement_is_set=agreement_is_set,
        rounds=[],
        rounds_picture="",
        curves={"PPO-ptx": "data:image/svg+xml;base64,AAAA"},
        cost=[("ppo_ptx", "3.2", "12,345", "cpu"), ("sft", "found in the store", "", "")],
        roads=[("RLOO", "15,360", "98,765", "98,764", "61.5", "703")],
    )


def test_the_published_page_tells_what_only_the_run_knows_and_the_cached_one_does_not() -> None:
    cached = render(trio(), ppo_ptx=HISTORY)
    page = published(cached, facts())
    for words in (
        "2030-01-02 03:04 UTC",
        "found in the store",
        "12,345",
        "98,765",
        "too_long 100",
        "65.1 %",
        "Their agreement is no result",
    ):
        assert words in page, words
        assert words not in cached, words
    assert "plumbline:" not in page
    assert "Their agreement is no result" not in published(cached, facts(agreement_is_set=False))
    assert "<script>" not in page and not [tag for tag, attributes in Outline(page).tags if "onerror" in attributes]


def test_every_entry_of_the_contents_leads_somewhere() -> None:
    tags = Outline(published(render(trio(), ppo_ptx=HISTORY), facts())).tags
    targets = {attributes["id"] for _, attributes in tags if "id" in attributes}
    links = [
        str(attributes["href"]) for tag, attributes in tags if tag == "a" and str(attributes["href"]).startswith("#")
    ]
    assert len(links) >= 8
    assert {link.removeprefix("#") for link in links} <= targets


def test_a_long_training_becomes_a_few_means_in_order() -> None:
    points = [(float(step), float(step % 2)) for step in range(320)]
    found = windows(points)
    assert len(found) == WINDOWS
    assert [y for _, y in found] == [0.5] * WINDOWS
    assert found[0][0] == 9.5 and found[-1][0] == 309.5
    assert windows(points[:3]) == points[:3]


def test_ppo_over_iterations_is_the_same_picture_for_the_same_numbers() -> None:
    rows = [{"step": float(step), "objective/kl": 0.1 * step, "response/length": 10.0} for step in range(5)]
    assert over_iterations(rows) == over_iterations(rows)
    assert str(over_iterations(rows)).count("axes_") >= 2
    assert over_iterations([]) is None


def test_a_run_s_name_tells_what_else_was_changed() -> None:
    name = "beta=0.3 gamma=1.0 seed=1"
    command = "python -m flows.rlhf ppo.beta=0.3 seed=1 scale=miniature evaluation.temperature=0.7"
    assert told_apart(name, command) == f"{name} scale=miniature evaluation.temperature=0.7"
    assert told_apart("my run", command) == "my run"
    assert told_apart(name, "") == name
    many = "python -m flows.rlhf " + " ".join(f"a.b{number}=1" for number in range(6))
    assert told_apart(name, many).endswith("a.b3=1 +2")
