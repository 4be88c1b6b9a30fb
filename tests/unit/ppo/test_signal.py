"""Scores that teach nothing end the run, with what was found; scores that differ, and few episodes, do not."""

import io
from typing import Any

import pytest
import torch

from tasks.engine.errors import NothingToLearn
from tasks.ppo.learner import PPOLearner
from tests.unit.ppo import tiny


def with_eos_bias(bias: float, **changes: Any) -> PPOLearner:
    """What the policy adds to the logit of EOS; at -100 it never draws it."""
    networks = tiny.networks()
    for network in (networks.policy, networks.reference):
        network.lm_head.bias = torch.nn.Parameter(torch.zeros(len(tiny.WORDS)))
        network.lm_head.bias.data[1] = bias
    return PPOLearner(
        networks, tiny.tokenizer(), tiny.prompts(), tiny.documents(), tiny.config(**changes), tiny.runtime()
    )


def endless(**changes: Any) -> PPOLearner:
    return with_eos_bias(-100.0, **changes)


def constant(learner: PPOLearner) -> PPOLearner:
    """Its reward model says 0.7 to everything."""
    with torch.no_grad():
        learner.networks.reward_model.head.weight.zero_()
        learner.networks.reward_model.head.bias.fill_(1.0)
    return learner


def weights(learner: PPOLearner) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in learner.networks.policy.parameters()]


@pytest.mark.parametrize("missing_eos", ["replace", "subtract", "minimum"])
def test_a_policy_that_never_ends_is_refused_before_it_is_trained(missing_eos: str) -> None:
    learner = endless(missing_eos=missing_eos)
    before = weights(learner)
    with pytest.raises(NothingToLearn, match=r"EOS rate 0: none of the 16 responses .* response_tokens \(6\)"):
        learner.step()
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))


def test_the_refusal_names_the_scores_and_the_remedies() -> None:
    with pytest.raises(NothingToLearn) as caught:
        endless().step()
    for words in ("ppo.missing_eos=replace: -1 to -1", "data_prep.response_tokens", "ppo_init", "ppo.missing_eos=none"):
        assert words in str(caught.value)


def test_cut_off_responses_may_be_optimised_if_their_score_is_their_own() -> None:
    metrics = endless(missing_eos="none").step()
    assert metrics["response/eos_rate"] == 0.0 and metrics["objective/score_std"] > 0


def test_a_reward_without_spread_ends_the_run_with_what_was_found() -> None:
    learner = constant(tiny.learner(missing_eos="none"))
    with pytest.raises(
        NothingToLearn, match=r"iteration 1: all responses score the same \(mean 0\.7, standard deviation 0 "
    ):
        learner.step()


def test_a_policy_that_unlearns_to_end_is_told_so() -> None:
    learner = with_eos_bias(0.0)
    learner.step()
    learner.networks.policy.lm_head.bias.data[1] = -100.0
    with pytest.raises(
        NothingToLearn, match=r"iteration 2: .* EOS rate 0\).*No response ends any more: raise ppo\.beta"
    ):
        learner.step()


@pytest.mark.parametrize("estimator", ["leave_one_out", "group_normalised"])
def test_where_responses_to_one_prompt_are_compared_their_scores_must_differ(estimator: str) -> None:
    changes = {"advantage_estimator": estimator, "responses_per_prompt": 4, "whiten_advantages": False}
    learner = tiny.learner(missing_eos="none", **changes)

    def of_prompt(batch: Any) -> torch.Tensor:
        return batch.prompt_lengths.float()

    learner.networks.reward_model.scores = of_prompt
    with pytest.raises(NothingToLearn, match="all responses to one prompt score the same"):
        learner.step()
    generalised = tiny.learner(missing_eos="none", responses_per_prompt=4)
    generalised.networks.reward_model.scores = of_prompt
    assert generalised.step()["objective/score_std"] > 0  # prompts differ: the value model can tell them apart


def test_small_iterations_are_counted_together_also_over_a_checkpoint() -> None:
    changes: dict[str, Any] = {"episodes": 12, "episodes_per_iteration": 3, "minibatch_size": 3, "missing_eos": "none"}
    learner = constant(tiny.learner(**changes))
    learner.step()
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    file.seek(0)
    resumed = constant(tiny.learner(**changes))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    resumed.step()
    with pytest.raises(NothingToLearn, match=r"iteration 3: .* over the last 9 episodes"):
        resumed.step()


def test_single_episodes_of_different_scores_are_no_lack_of_spread() -> None:
    learner = tiny.learner(
        episodes=12, episodes_per_iteration=1, minibatch_size=1, missing_eos="none", whiten_advantages=False
    )
    scores = [learner.step()["objective/score"] for _ in range(12)]
    assert len(set(scores)) > 8
