"""The rules by which a row is left out: what such rows are like, and what a user can do about it."""

from typing import NamedTuple

UNNAMED = ("comparisons", "duplicate")
"""Role and rule of equal rankings, which are several people's judgments only where each is named."""
MOVED = "became_test_prompts"
"""No loss: prompts of test owners, which are good for testing."""
WORTH_A_LINE = 0.03
"""Share of a role's rows above which a rule is named on the console; ours."""
WORTH_A_WARNING = 0.25
"""Share of a role's rows above which their loss is a warning; ours."""


class Rule(NamedTuple):
    """One reason to leave a row out."""

    rows: str
    """What the rows do, after "they"."""
    remedy: str


RULES = {
    "no_answer": Rule("are conversations without an answer to a request", "remove them"),
    "no_request": Rule("are conversations in which nobody asks", "remove them"),
    "several_turns_differ": Rule(
        "differ in more than their last answers", "cut the conversations where they part, and rank those answers"
    ),
    "refused_by_layout": Rule(
        "are conversations that the chat template does not take, such as two requests in a row or a system message",
        "merge or remove such messages",
    ),
    "tools": Rule("are conversations with tools", "remove them"),
    "not_text": Rule("hold pictures or sound", "remove them"),
    "no_score": Rule("have an answer without a score", "score every answer"),
    "ranks_and_scores": Rule(
        "have ranks and scores that contradict each other", "correct them, or take one of the two fields away"
    ),
    "empty_response": Rule("have a response of nothing but the end token", "fill it in"),
    "same_response": Rule(
        "prefer a response to the same text, so that there is nothing to learn", "compare different responses"
    ),
    "pii": Rule("hold personal data", "set data_prep.drop_pii=false to keep them"),
    "in_held_out_split": Rule(
        "repeat, or begin like, a prompt of the validation or test split",
        "raise data_prep.duplicate_prefix_fraction (1.0 drops exact repetitions only) if these are different requests",
    ),
    "duplicate": Rule("repeat another row", "remove the repetitions"),
    "duplicate_prefix": Rule(
        "begin like another prompt",
        "raise data_prep.duplicate_prefix_fraction (1.0 drops exact repetitions only) and "
        "data_prep.duplicate_prefix_words if these are different requests",
    ),
    "owner_cap": Rule("are beyond their owner's share", "raise data_prep.max_prompts_per_owner"),
    "long_prompt": Rule("have a longer prompt than data_prep.prompt_tokens", "raise it, or shorten them"),
    "long_response": Rule("have a longer response than data_prep.response_tokens", "raise it, or shorten them"),
    "special_token": Rule(
        "spell a special token of the tokenizer",
        "take chat markup such as <s> or <|im_start|> out of the texts: the layout of prompts writes it",
    ),
}


def sentence(rule: str, count: int, of: int, role: str, example: str) -> str:
    """What a rule took away from a role, with the place of the first such row."""
    known = RULES[rule]
    place = f"; the first is {example}" if example else ""
    people = ", or name the labeler of each row if several people ranked the same" if (role, rule) == UNNAMED else ""
    return f"{count} of {of} {role} are left out by the rule {rule}: they {known.rows}{place}; {known.remedy}{people}"
