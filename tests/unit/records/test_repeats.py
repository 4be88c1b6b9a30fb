"""Which test prompts repeat a training request: the embedded world knows the answer, since it drew opening and request apart."""

import random

from tasks.records.repeats import repeated
from tasks.sandbox import words
from tasks.sandbox.prompts import CUSTOMER_SHARES, Source, draft, layout
from tasks.sandbox.world import World


def test_the_same_request_behind_another_opening_is_found_and_no_other() -> None:
    rng = random.Random(4)
    source = Source(World.from_seed(1), rng, 0.0)
    requests = [draft(source, CUSTOMER_SHARES)[1] for _ in range(1500)]

    def asked(request: str) -> str:
        return layout(f"{rng.choice(words.PROMPT_OPENERS)} {request}")

    known = set(requests[:1200])
    truth = [request in known for request in requests[1200:]]
    found = repeated([asked(request) for request in requests[1200:]], [asked(request) for request in requests[:1200]])
    assert 50 < sum(truth) < 250
    assert found == truth


def test_case_space_and_layout_do_not_count() -> None:
    prompts = ["User: Hello there, where does the river end?\n\nBot:", "User: Why is the sky blue at noon?\n\nBot:"]
    assert repeated(prompts, ["User: please  WHERE does the river end?\n\nBot:"]) == [True, False]
    assert repeated(prompts, []) == [False, False]
    assert repeated([], ["x"]) == []
