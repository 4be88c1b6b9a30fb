"""A watched run trains exactly as an unwatched one, survives a crash, and ships the weights that it should."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.language.batches import TokenBatch
from tasks.ppo.learner import PPOLearner, ShownEpisode
from tasks.ppo.rollout import Episodes
from tasks.ppo.watch import GoldJudge, HeldOutJudge, IndependentJudge, WatchedLearner, repetition_statistics
from tasks.records.records import Prompt
from tasks.sandbox import words
from tasks.sandbox.world import World
from tests.unit.ppo import tiny

Weights = dict[str, Tensor]


class Scripted:
    """Says a given mean at each iteration."""

    name = "independent"

    def __init__(self, means: Sequence[float]) -> None:
        self.means, self.asked = list(means), 0

    def score(self, samples: Sequence[ShownEpisode], episodes: Episodes) -> list[float]:
        mean = self.means[self.asked]
        self.asked += 1
        return [mean - 1.0, mean + 1.0] * (len(samples) // 2)


def live(seen: WatchedLearner) -> Weights:
    """The policy that the next iteration draws from."""
    return weights(seen.learner.networks.policy)


def mean_of_scored(policies: Sequence[Weights], window: int) -> Weights:
    """The weights that scores of these policies are of: the last one counts 2 / (window + 1), one before it that much less."""
    newest = 2 / (window + 1)
    shares = [newest * (1 - newest) ** age for age in reversed(range(len(policies)))]
    shares[0] = 1 - sum(shares[1:])  # the average starts at the first
    return {
        name: sum(share * policy[name].double() for share, policy in zip(shares, policies, strict=True)).float()  # type: ignore[union-attr]
        for name in policies[0]
    }


def near(one: Weights, other: Weights) -> bool:
    return all(torch.allclose(one[name], other[name], atol=1e-7, rtol=1e-6) for name in other)


class VarietyJudge:
    """Likes responses whose words differ and that end: what a letter counter does not care about."""

    name = "independent"

    def score(self, samples: Sequence[ShownEpisode], episodes: Episodes) -> list[float]:
        said = [item.response.split() for item in samples]
        return [len(set(words)) - len(words) + float(item.finished) for words, item in zip(said, samples, strict=True)]


class LetterCounter(nn.Module):
    """A planted reward model: how often the letter e occurs in the response."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.register_buffer("letters", torch.tensor([float(word.count("e")) * word.isalpha() for word in tiny.WORDS]))

    def scores(self, batch: TokenBatch) -> Tensor:
        columns = torch.arange(batch.input_ids.shape[1])
        response = (columns >= batch.prompt_lengths[:, None]) & (columns < batch.lengths[:, None])
        return (self.letters[batch.input_ids] * response).sum(dim=1)


def sentinel(**changes: Any) -> dict[str, Any]:
    return tiny.shipped("sandbox")["sentinel"] | {"window": 2} | changes


def watched(
    judges: Sequence[HeldOutJudge] = (), *, selection: str = "last", iterations: int = 4, **changes: Any
) -> WatchedLearner:
    learner = tiny.learner(episodes=16 * iterations, selection=selection, sentinel=sentinel(**changes))
    return WatchedLearner(learner, judges)


def weights(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def equal(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def independent() -> IndependentJudge:
    return IndependentJudge(tiny.networks().reward_model, 0, tiny.runtime(tokens_per_microbatch=30))


def run(learner: PPOLearner | WatchedLearner) -> list[dict[str, float]]:
    rows = []
    while learner.completed_steps < learner.total_steps:
        rows.append(learner.step())
    return rows


def test_watching_changes_no_weight_and_no_other_metric() -> None:
    bare, seen = tiny.learner(), watched([independent(), Scripted([0.0] * 9)])
    unwatched, with_watch = run(bare), run(seen)
    assert equal(weights(bare.final_policy()), weights(seen.final_policy()))
    assert equal(weights(bare.networks.value_model), weights(seen.learner.networks.value_model))
    assert [{name: row[name] for name in unwatched[0]} for row in with_watch] == unwatched


def test_the_independent_judge_scores_each_response_by_itself() -> None:
    seen = watched()
    seen.step()
    episodes, model = seen.learner.last_episodes, tiny.networks().reward_model
    assert episodes is not None
    alone = [
        model.scores(
            TokenBatch(torch.tensor([[*prompt, *response]]), torch.tensor([len(prompt)]), torch.tensor([len(response)]))
        ).item()
        for prompt, response in zip(episodes.prompts, episodes.scored, strict=True)
    ]
    assert independent().score(seen.learner.samples(16), episodes) == pytest.approx(alone, abs=1e-5)


def test_the_gold_judge_pays_for_a_right_list() -> None:
    prompt = Prompt(prompt_id="1", owner_id="o", text="q", metadata={"task": "list", "count": 2, "category": "colors"})
    first, second = sorted(words.CATEGORIES["colors"])[:2]
    right, wrong, cut = (
        ShownEpisode(prompt, f"{first} , {second} .", 0.0, True),
        ShownEpisode(prompt, f"{first} , bread .", 0.0, True),
        ShownEpisode(prompt, f"{first} , {second} .", 0.0, False),
    )
    scores = GoldJudge(World.from_seed(1)).score([right, wrong, cut], Episodes([], [], [], [], []))
    assert scores[0] > scores[1] and scores[0] > scores[2]
    assert scores[0] == pytest.approx(3.0 + 0.8)  # HELP x 1 + finished form


def test_judges_are_asked_every_so_often() -> None:
    judge = Scripted([1.0, 2.0])
    seen = watched([judge], every=3)
    rows = [seen.step() for _ in range(4)]
    assert [row.get("objective/score_independent") for row in rows] == [1.0, None, None, 2.0]
    assert rows[0]["objective/score_independent_std"] == 1.0


def test_a_resumed_run_has_the_same_history_warnings_and_weights() -> None:
    script = [5.0, 6.0, 6.0, 6.0, -9.0, -9.0, -9.0, -9.0]
    whole = watched([Scripted(script)], selection="independent", iterations=8, held_out_fall=0.5)
    run(whole)
    first = watched([Scripted(script)], selection="independent", iterations=8, held_out_fall=0.5)
    for _ in range(5):
        first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = watched([Scripted(script[5:])], selection="independent", iterations=8, held_out_fall=0.5)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    run(resumed)
    assert resumed.history == whole.history
    assert resumed.report() == whole.report()
    assert (whole.report().iterations, whole.report().selected_iteration) == (8, 3)
    assert equal(weights(resumed.final_policy()), weights(whole.final_policy()))


def test_the_best_iteration_by_the_held_out_score_is_shipped() -> None:
    means = [0.0, 3.0, 9.0, 2.0]  # over two: 1.5, 6.0, 5.5
    seen = watched([Scripted(means)], selection="independent")
    scored = []
    for _ in means:
        scored.append(live(seen))
        seen.step()
    assert seen.report().selected_iteration == 3
    shipped = weights(seen.final_policy())
    assert near(shipped, mean_of_scored(scored[:3], 2))
    assert not near(shipped, mean_of_scored(scored, 2)) and not near(shipped, weights(seen.learner.final_policy()))


def test_weights_that_no_judge_scored_do_not_count() -> None:
    seen = watched([Scripted([1.0, 5.0, 0.0])], selection="independent", iterations=5, every=2)
    scored = []
    for step in range(5):
        if step % 2 == 0:
            scored.append(live(seen))
        seen.step()
    assert seen.report().selected_iteration == 3
    assert near(weights(seen.final_policy()), mean_of_scored(scored[:2], 2))


def test_a_warning_is_kept_with_its_first_and_last_iteration() -> None:
    seen = watched([Scripted([4.0, 4.0, 4.0, 0.0, 0.0, 4.0])], iterations=6, held_out_fall=1.5)
    rows = [seen.step() for _ in range(3)]
    assert [row["sentinel/over_optimisation_independent"] for row in rows] == [0.0, 0.0, 0.0]
    for row in seen.history:
        row["objective/score"] = -99.0  # whatever the tiny run does, the optimised score has risen since
    rows = [seen.step() for _ in range(3)]
    assert [row["sentinel/over_optimisation_independent"] for row in rows] == [1.0, 1.0, 1.0]
    warning = next(item for item in seen.report().warnings if item.rule == "over_optimisation_independent")
    assert (warning.first_iteration, warning.last_iteration, warning.found) == (4, 6, 2.0)


def test_early_stop_ends_the_run_at_the_first_warning() -> None:
    seen = watched(iterations=9, early_stop=True, kl_per_iteration=1e-9)
    run(seen)
    report = seen.report()
    assert report.stopped_early and report.iterations == len(seen.history) < report.planned_iterations == 9
    assert report.warnings[0].first_iteration == report.iterations


@pytest.mark.parametrize("early_stop", [False, True])
def test_a_reward_model_that_counts_a_letter_is_noticed(early_stop: bool) -> None:
    networks = tiny.networks()._replace(reward_model=LetterCounter())
    adam = tiny.settings()["policy_adam"] | {"learning_rate": 0.02}
    config = tiny.config(
        episodes=64 * 20,  # at 22 every response has the same six letters, and the run ends for want of a spread
        episodes_per_iteration=64,
        minibatch_size=32,
        beta=0.01,
        gamma=0.0,
        missing_eos="none",
        policy_adam=adam,
        sentinel=tiny.shipped("sandbox")["sentinel"] | {"early_stop": early_stop, "eos_rate": None},  # few end here
    )
    learner = WatchedLearner(
        PPOLearner(networks, tiny.tokenizer(), tiny.prompts(), [], config, tiny.runtime(debug=False)), [VarietyJudge()]
    )
    run(learner)
    report = learner.report()
    assert "over_optimisation_independent" in [warning.rule for warning in report.warnings]
    assert report.stopped_early is early_stop


def test_repetition_within_and_across() -> None:
    found = repetition_statistics([[1, 2, 1, 2, 1], [3, 4, 5], [3, 4, 5], [6]])
    # bigrams 12 21 12 21: 2 of 4; 34 45: 2 of 2, twice; [6] has none
    assert found == {
        "response/distinct_bigrams": pytest.approx((0.5 + 1.0 + 1.0) / 3),
        "response/most_common_share": 0.5,
    }
    assert repetition_statistics([[1], []])["response/distinct_bigrams"] == 1.0
