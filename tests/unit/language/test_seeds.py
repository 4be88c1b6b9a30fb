import re
from pathlib import Path

import torch

import tasks
from tasks.language.seeds import derived_seed, named_generator, named_random

ROOT = Path(tasks.__file__).parents[1]
NAMED_BY_TEXT = ("tasks/sandbox/", "tasks/data_prep/cap.py")
"""Their streams have names too, as the text that Python's own generator takes for a seed."""


def test_a_seed_is_a_digest_of_its_name() -> None:
    assert (
        derived_seed(1, "ppo/minibatches") == derived_seed(1, "ppo", "minibatches") == 0x7EBF1F517F3091
    )  # of sha256sum


def test_no_use_has_the_stream_of_another_use_or_seed() -> None:
    firsts = {int(torch.randint(2**40, (), generator=named_generator(s, n))) for s in range(4) for n in ("a", "b")}
    others = {named_random(s, n).getrandbits(40) for s in range(4) for n in ("a", "b")}
    assert len(firsts) == len(others) == 8
    assert named_random(1, "a").random() == named_random(1, "a").random()


def test_nothing_else_makes_a_generator_of_a_seed() -> None:
    raw = re.compile(r"manual_seed\((?!0\))|random\.Random\(|seed \+ \d")
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for folder in ("tasks", "flows")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not str(file.relative_to(ROOT)).startswith((*NAMED_BY_TEXT, "tasks/language/seeds.py"))
        for line in file.read_text().splitlines()
        if raw.search(line)
    ]
    assert not found
