"""Agreement between kinds of labelers as the page of a run tells it."""

from flows.run.page import _between_kinds


def test_kinds_are_named_in_words_and_have_their_interval() -> None:
    metrics = {
        "agreement/people-people": 0.726,
        "agreement/people-people_low": 0.7,
        "agreement/people-people_high": 0.75,
        "agreement/people-people_pairs": 400.0,
        "agreement/chat-reward_model": 1.0,
        "agreement/chat-reward_model_low": 1.0,
        "agreement/chat-reward_model_high": 1.0,
        "agreement/chat_orders": 0.9,
    }
    assert _between_kinds(metrics) == [
        ("Agreement of people with each other", "72.6 [70.0, 75.0] %"),
        ("Agreement of chat with reward model", "100.0 [100.0, 100.0] %"),
    ]
