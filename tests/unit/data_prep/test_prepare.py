"""The whole stage on small folders: what is planted must be gone, what is innocent must stay."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.data_prep.audit import check_no_leaks
from tasks.data_prep.config import DataPrepConfig
from tasks.data_prep.deduplicate import normalise
from tasks.data_prep.prepare import prepare, rows_to_read
from tasks.data_prep.sources.sandbox import read_sandbox
from tasks.data_prep.split import ANY_SPLITS, AnySplit, Shares, owner_key, split_of
from tasks.data_prep.tokenizer import train_tokenizer
from tasks.engine.config import ModelConfig
from tasks.engine.errors import DataError
from tasks.records.data import SPLITS, PreparedData, PreparedRecords, write_prepared_data
from tasks.records.records import Prompt
from tasks.sandbox.world import World
from tests.unit.data_prep.samples import everything, model, own_data, question, values, write

SHARES = Shares(valid=0.25, test=0.2)


def run(config: DataPrepConfig, folder: Path, base: ModelConfig | None = None) -> tuple[PreparedData, dict[str, Any]]:
    folder.mkdir()
    prepare(config, base or model(), folder)
    return PreparedData(folder), json.loads((folder / "audit.json").read_text())


def owner_in(split: AnySplit, start: int = 0) -> str:
    owners = [f"o{i}" for i in range(start, start + 500)]
    keys = np.array([owner_key(owner, seed=3) for owner in owners], np.uint64)
    return owners[np.flatnonzero(split_of(keys, SHARES) == ANY_SPLITS.index(split))[0]]


def texts(prompts: list[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def dropped(audit: dict[str, Any], role: str, split: str) -> dict[str, int]:
    return next(row["dropped"] for row in audit["rows"] if (row["role"], row["split"]) == (role, split))


def asked(owner: str, *prompts: str) -> list[dict[str, str]]:
    return [{"prompt": prompt, "owner_id": owner} for prompt in prompts]


def test_all_roles_reach_their_splits_and_nothing_gets_lost(tmp_path: Path) -> None:
    data, audit = run(own_data(everything(tmp_path / "in", 60)), tmp_path / "out")
    kept = {role: [len(getattr(data, role)(split)) for split in SPLITS] for role in ("demonstrations", "comparisons")}
    kept["rl_prompts"] = [len(data.rl_prompts(split)) for split in SPLITS]
    kept["documents"] = [len(data.documents(split)) for split in SPLITS]
    assert all(min(counts) > 0 for counts in kept.values())
    in_training_roles = sum(sum(kept[role]) for role in ("demonstrations", "comparisons", "rl_prompts"))
    assert in_training_roles + len(data.prompts_for_test()) == 3 * 60 + 5
    assert sum(kept["documents"]) == 60
    # Explicit test prompts first, then the test owners' prompts for PPO, rankings and demonstrations.
    assert texts(data.prompts_for_test())[:5] == [question(3000 + i) for i in range(5)]
    assert texts(data.prompts_for_test())[5].startswith("20")
    assert [item.task for item in data.benchmarks()] == ["piqa"]
    assert texts(data.toxicity_prompts()) == ["go away"]
    assert audit["leak_check"] == {"prompts": 185, "owners": 185}
    for row in audit["rows"]:
        assert row["read"] - sum(row["dropped"].values()) == row["kept"]


@pytest.mark.point(1)
def test_owners_are_disjoint_over_all_roles(tmp_path: Path) -> None:
    rows = [{"prompt": question(i), "owner_id": f"o{i % 20}", "response": "ok"} for i in range(200)]
    others = [{"prompt": question(500 + i), "owner_id": f"o{i % 20}"} for i in range(200)]
    data, _ = run(
        own_data(write(tmp_path / "in", {"demonstrations.jsonl": rows, "rl_prompts.jsonl": others})), tmp_path / "out"
    )
    owners = {
        split: {item.prompt.owner_id for item in data.demonstrations(split)}
        | {prompt.owner_id for prompt in data.rl_prompts(split)}
        for split in SPLITS
    } | {"test": {prompt.owner_id for prompt in data.prompts_for_test()}}
    assert sum(len(found) for found in owners.values()) == len(set.union(*owners.values())) == 20


@pytest.mark.point(4)
def test_planted_personal_data_is_gone_from_train_and_still_in_valid(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    rows = [
        *({"prompt": question(i), "owner_id": train, "response": "fine"} for i in range(5)),
        {"prompt": "mail ann@example.com about it", "owner_id": train, "response": "fine"},
        {"prompt": "what is your number", "owner_id": train, "response": "call 555-123-4567"},
        {"prompt": "mail bob@example.com about it", "owner_id": valid, "response": "fine"},
    ]
    folder = write(tmp_path / "in", {"demonstrations.jsonl": rows})
    data, audit = run(own_data(folder), tmp_path / "out")
    assert len(data.demonstrations("train")) == 5
    assert [item.prompt.text for item in data.demonstrations("valid")] == ["mail bob@example.com about it"]
    assert dropped(audit, "demonstrations", "train") == {"pii": 2}
    assert audit["pii_rules"] == {"email": 1, "phone": 1}
    unscrubbed, _ = run(own_data(folder, drop_pii=False), tmp_path / "unscrubbed")
    assert len(unscrubbed.demonstrations("train")) == 7


def test_planted_duplicates(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    long = " ".join(f"word{i}" for i in range(100))
    prompts = [
        *asked(train, f"{long} first ending", f"{long} second ending", "one two three four five six a b c d e f g"),
        *asked(train, "one two three four five seven h i j k l m n", "Say   IT", "say it"),
        *asked(valid, "something else entirely"),
    ]
    data, audit = run(own_data(write(tmp_path / "in", {"rl_prompts.jsonl": prompts})), tmp_path / "out")
    assert texts(data.rl_prompts("train")) == [
        prompts[0]["prompt"],
        prompts[2]["prompt"],
        prompts[3]["prompt"],
        "Say   IT",
    ]
    assert dropped(audit, "rl_prompts", "train") == {"duplicate": 1, "duplicate_prefix": 1}


def test_planted_leaks_go_to_the_held_out_side(tmp_path: Path) -> None:
    """The same words from three owners, in three roles: test keeps them, then validation, then training."""
    train, valid, test = owner_in("train"), owner_in("valid"), owner_in("test")
    folder = write(
        tmp_path / "in",
        {
            "demonstrations.jsonl": [
                {"prompt": "shared with test", "owner_id": train, "response": "x"},
                {"prompt": "SHARED with  valid", "owner_id": train, "response": "x"},
                {"prompt": "shared between roles", "owner_id": train, "response": "x"},
                {"prompt": "my own", "owner_id": valid, "response": "x"},
            ],
            "rl_prompts.jsonl": [
                *asked(test, "shared with test"),
                *asked(valid, "shared with valid", "shared with test", "some other one"),
                *asked(train, "shared between roles"),
            ],
        },
    )
    data, audit = run(own_data(folder), tmp_path / "out")
    assert texts(data.prompts_for_test()) == ["shared with test"]
    assert texts(data.rl_prompts("valid")) == ["shared with valid", "some other one"]
    assert [item.prompt.text for item in data.demonstrations("train")] == ["shared between roles"]
    assert texts(data.rl_prompts("train")) == ["shared between roles"]  # roles may share within a split
    assert dropped(audit, "demonstrations", "train") == {"in_held_out_split": 2}


def test_one_prompt_may_have_several_rankings_but_not_the_same_one_twice(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    pair = {"prompt": "which ?", "owner_id": train, "chosen": "a", "rejected": "b", "labeler": "l1"}
    other = {"prompt": "something else", "owner_id": valid, "chosen": "a", "rejected": "b"}
    rows = [pair, pair | {"labeler": "l2"}, pair | {"chosen": "c"}, pair, pair | {"prompt": "Which ?"}, other]
    data, audit = run(own_data(write(tmp_path / "in", {"comparisons.jsonl": rows})), tmp_path / "out")
    assert [item.labeler_id for item in data.comparisons("train")] == ["l1", "l2", "l1"]
    assert dropped(audit, "comparisons", "train") == {"duplicate": 2}


def test_the_cap_follows_deduplication(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    prompts = asked(train, *(question(i // 2) for i in range(500))) + asked(valid, "mine")
    data, audit = run(own_data(write(tmp_path / "in", {"rl_prompts.jsonl": prompts})), tmp_path / "out")
    assert len(set(texts(data.rl_prompts("train")))) == 200
    assert dropped(audit, "rl_prompts", "train") == {"duplicate": 250, "owner_cap": 50}


@pytest.mark.point(5)
def test_what_the_model_cannot_read_is_dropped_and_counted(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    rows = [
        {"prompt": "ask me", "response": "yes no"},
        {"prompt": "go " * 1024, "response": "exactly at the limit"},
        {"prompt": "stop " * 1025, "response": "over it"},
        {"prompt": "talk", "response": "on " * 1024},  # with its EOS over the limit
        {"prompt": "hide <eos> here", "response": "x"},
    ]
    rows = [row | {"owner_id": train} for row in rows] + [{"prompt": "v", "response": "x", "owner_id": valid}]
    documents = [{"text": f"text {i}"} for i in range(20)] + [{"text": "the <pad> token"}]
    folder = write(tmp_path / "in", {"demonstrations.jsonl": rows, "pretrain.jsonl": documents})
    data, audit = run(own_data(folder), tmp_path / "out")
    assert [item.response for item in data.demonstrations("train")] == ["yes no", "exactly at the limit"]
    expected = {"long_prompt": 1, "long_response": 1, "special_token": 1}
    assert dropped(audit, "demonstrations", "train") == expected
    assert sum(len(data.documents(split)) for split in SPLITS) == 20
    row = next(row for row in audit["rows"] if (row["role"], row["split"]) == ("demonstrations", "train"))
    assert row["prompt_tokens"] == {"mean": 513.0, "median": 513.0, "max": 1024.0}
    assert row["response_tokens"] == {"mean": 4.0, "median": 4.0, "max": 5.0}


def test_an_unfit_tokenizer_is_noticed(tmp_path: Path) -> None:
    _, audit = run(own_data(everything(tmp_path / "in")), tmp_path / "out", model(vocab_size=10))
    assert any("of the tokens are unknown words; raise model.tokenizer.vocab_size" in note for note in audit["notices"])


@pytest.mark.parametrize(
    ("files", "minimum", "message"),
    [
        (
            {"rl_prompts.jsonl": asked(owner_in("valid"), "only one"), "demonstrations.jsonl": []},
            1,
            "found no file for comparisons",
        ),
        (
            {name: [] for name in ("demonstrations.jsonl", "rankings.jsonl", "rl_prompts.jsonl")}
            | {"pretrain.jsonl": [{"text": "words"}]},
            1,
            "found 0 rows of demonstrations in the train split after cleaning, expected at least 1; add data",
        ),
        (
            {
                "rl_prompts.jsonl": asked(owner_in("train"), "one", "two"),
                "pretrain.jsonl": [{"text": f"w{i}"} for i in range(30)],
            },
            0,
            r"found no validation rows of rl_prompts beside 2 training rows, .*validation_fraction \(0.25\)",
        ),
    ],
)
def test_empty_splits(tmp_path: Path, files: dict[str, Any], minimum: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(own_data(write(tmp_path / "in", files), minimum=minimum), tmp_path / "out")


def test_too_few_test_prompts(tmp_path: Path) -> None:
    minimum = {"demonstrations": 0, "comparisons": 0, "rl_prompts": 0, "documents": 0, "test_prompts": 100}
    with pytest.raises(DataError, match="rows of test_prompts in the test split after cleaning, expected at least 100"):
        run(own_data(everything(tmp_path / "in"), minimum_rows=minimum), tmp_path / "out")


def test_the_audit_finds_a_leak_that_cleaning_let_through(tmp_path: Path) -> None:
    def prompt(name: str, owner: str, text: str) -> Prompt:
        return Prompt(prompt_id=name, owner_id=owner, text=text)

    def leaky(folder: Path, train: Prompt, test: Prompt) -> Path:
        records = PreparedRecords(rl_prompts={"train": [train]}, test_prompts=[test])
        write_prepared_data(folder, records, train_tokenizer(model(), ["a"]))
        return folder

    same_text = leaky(tmp_path / "text", prompt("p1", "o1", "Say  it"), prompt("p2", "o2", "say it"))
    with pytest.raises(
        DataError, match=r"leak: the same prompt is in test \(test_prompts p2\) and in train \(rl_prompts p1\)"
    ):
        check_no_leaks(same_text)
    same_owner = leaky(tmp_path / "owner", prompt("p1", "o1", "a"), prompt("p2", "o1", "b"))
    with pytest.raises(DataError, match="leak: the same owner is in test"):
        check_no_leaks(same_owner)
    assert check_no_leaks(leaky(tmp_path / "fine", prompt("p1", "o1", "a"), prompt("p2", "o2", "b")))["prompts"] == 2


def small_sandbox() -> DataPrepConfig:
    loaded = values("sandbox")
    loaded["sandbox"] |= {
        "documents": 300,
        "demonstrations": 80,
        "comparison_prompts": 80,
        "rl_prompts": 80,
        "test_prompts": 60,
        "benchmark_items_per_task": 3,
        "toxicity_prompts": 5,
    }
    return DataPrepConfig(**loaded)


def test_the_sandbox(tmp_path: Path) -> None:
    data, audit = run(small_sandbox(), tmp_path / "out", model(vocab_size=512))
    assert rows_to_read(small_sandbox()) == 600 == sum(row["read"] for row in audit["rows"])
    assert World.read(tmp_path / "out") == World.from_seed(3)
    prompts = [prompt for split in SPLITS for prompt in [*data.rl_prompts(split), *data.comparison_prompts(split)]]
    prompts += [item.prompt for split in SPLITS for item in data.demonstrations(split)]
    everyone = [*prompts, *data.prompts_for_test()]
    assert len(everyone) == len({normalise(text) for text in texts(everyone)}) == 300
    assert not any(prompt.metadata["held_out"] for prompt in prompts)
    assert 5 < sum(prompt.metadata["held_out"] for prompt in data.prompts_for_test()) < 40
    assert len(data.toxicity_prompts()) == 5 and len(data.benchmarks()) > 10
    assert sum(sum(row["dropped"].values()) for row in audit["rows"]) == 0


def test_sandbox_prompts_differ_over_all_roles() -> None:
    config = small_sandbox().sandbox
    assert config is not None
    many = dict.fromkeys(("demonstrations", "comparison_prompts", "rl_prompts", "test_prompts"), 1000)
    source = read_sandbox(config.model_copy(update=many), seed=3)
    prompts = [item.prompt for item in source.demonstrations] + source.comparison_prompts + source.rl_prompts
    assert len({normalise(text) for text in texts(prompts + source.test_prompts)}) == 4000


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    def digests(folder: Path, config: DataPrepConfig) -> dict[str, str]:
        run(config, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    everything(tmp_path / "here")
    everything(tmp_path / "elsewhere" / "there")
    first = digests(tmp_path / "1", own_data(tmp_path / "here"))
    assert digests(tmp_path / "2", own_data(tmp_path / "elsewhere" / "there")) == first
    assert digests(tmp_path / "3", own_data(tmp_path / "here").model_copy(update={"seed": 4})) != first
    assert digests(tmp_path / "4", small_sandbox()) == digests(tmp_path / "5", small_sandbox())


def test_metrics_are_the_counts_of_the_audit(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    metrics = prepare(own_data(everything(tmp_path / "in")), model(), tmp_path / "out")
    data = PreparedData(tmp_path / "out")
    assert metrics["demonstrations/train"] == len(data.demonstrations("train"))
    assert metrics["test_prompts/test"] == len(data.prompts_for_test())
    assert metrics["benchmarks/test"] == 1
    assert metrics["tokenizer/entries"] == len(data.tokenizer())


def votes(*ranks: list[int]) -> list[dict[str, Any]]:
    return [{"prompt": "vote", "completions": ["the cat", "the dog"], "ranks": rank} for rank in ranks]


def as_pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same votes as chosen and rejected."""
    pairs = []
    for row in rows:
        best, worst = (row["completions"][row["ranks"].index(rank)] for rank in (1, 2))
        pairs.append({"prompt": row["prompt"], "chosen": best, "rejected": worst})
    return pairs


@pytest.mark.parametrize("layout", [list, as_pairs])
def test_opposite_votes_of_unnamed_people_all_stay_in_both_layouts(tmp_path: Path, layout: Any) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    rows = [row | {"owner_id": train} for row in layout(votes([2, 1], [1, 2], [1, 2]))]
    rows.append({"prompt": "other", "chosen": "a", "rejected": "b", "owner_id": valid})
    data, audit = run(own_data(write(tmp_path / "in", {"comparisons.jsonl": rows})), tmp_path / "out")
    best = [item.completions[item.ranks.index(1)] for item in data.comparisons("train")]
    assert best == ["the dog", "the cat", "the cat"]
    assert dropped(audit, "comparisons", "train") == {}
    assert not any("several labelers" in notice for notice in audit["notices"])  # who they are is not known


def test_equal_votes_of_one_person_are_one_however_they_are_written(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    same = {"prompt": "vote", "labeler": "kim", "owner_id": train}
    rows = [
        same | {"completions": ["a", "b", "c"], "ranks": [1, 2, 2]},
        same | {"completions": ["c", "a", "b"], "ranks": [5, 3, 5]},
        same | {"completions": ["a", "b", "c"], "ranks": [1, 1, 2]},  # this person changed their mind
        {"prompt": "other", "chosen": "a", "rejected": "b", "owner_id": valid},
    ]
    data, audit = run(own_data(write(tmp_path / "in", {"comparisons.jsonl": rows})), tmp_path / "out")
    assert [item.ranks for item in data.comparisons("train")] == [[1, 2, 2], [1, 1, 2]]
    assert dropped(audit, "comparisons", "train") == {"duplicate": 1}


def test_rankings_by_several_named_labelers_are_judgments_and_not_repetitions(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")

    def row(prompt: str, best: str = "a", worst: str = "b", **who: Any) -> dict[str, Any]:
        return {"prompt": prompt, "chosen": best, "rejected": worst, "owner_id": train, **who}

    rows = [
        *(row("all agree", labeler="kim"), row("all agree", annotator="lee"), row("all agree", annotator=7)),
        *(row("they differ", labeler="kim"), row("they differ", "b", "a", labeler="lee")),
        {
            "prompt": "one row",
            "completion_a": "a",
            "completion_b": "b",
            "labels": {"x": "a", "y": "a"},
            "owner_id": train,
        },
        # none of these is an item that several labelers judged
        *(row("said twice", labeler="kim"), row("said twice", labeler="kim")),
        *(row("unnamed twice"), row("unnamed twice")),
        *(row("mind changed", labeler="kim"), row("mind changed", "b", "a", labeler="kim")),
        *(row("other responses", labeler="kim"), row("other responses", "a", "c", labeler="lee")),
        *(row("one unnamed", labeler="kim"), row("one unnamed")),
        row("valid", owner_id=valid),
    ]
    data, audit = run(own_data(write(tmp_path / "in", {"comparisons.jsonl": rows})), tmp_path / "out")
    kept = [item.prompt.text for item in data.comparisons("train")]
    assert [kept.count(prompt) for prompt in dict.fromkeys(kept)] == [3, 2, 2, 1, 1, 2, 2, 2]
    assert dropped(audit, "comparisons", "train") == {"duplicate": 2}
    examples = next(row for row in audit["rows"] if (row["role"], row["split"]) == ("comparisons", "train"))["examples"]
    assert examples == {"duplicate": "comparisons.jsonl:8"}
    assert [notice for notice in audit["notices"] if "several" in notice] == [
        "comparisons: 3 prompts were ranked by several labelers: 7 rankings of the same responses, none of which repeats "
        "another"
    ]


def test_repetitions_within_several_labelers_rankings_stay_repetitions(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    rows = [
        {"prompt": "vote", "chosen": "a", "rejected": "b", "labeler": name, "owner_id": train}
        for name in ("kim", "lee", "kim", "lee", "lee")
    ]
    rows.append({"prompt": "valid", "chosen": "a", "rejected": "b", "owner_id": valid})
    data, audit = run(own_data(write(tmp_path / "in", {"comparisons.jsonl": rows})), tmp_path / "out")
    assert [item.labeler_id for item in data.comparisons("train")] == ["kim", "lee"]
    assert dropped(audit, "comparisons", "train") == {"duplicate": 3}
    assert any("1 prompts were ranked by several labelers: 2 rankings" in notice for notice in audit["notices"])


def test_a_text_that_is_preferred_to_itself_is_dropped_and_counted(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    good = {"prompt": "good", "completions": ["a", "b", "a"], "ranks": [1, 2, 1]}
    rows = [
        good,
        {"prompt": "which one", "chosen": "the cat", "rejected": "the cat"},
        {"prompt": "what of it", "chosen": "the cat ", "rejected": "the cat<eos>"},
        {"prompt": "how many", "completions": ["a", "b", "a"], "ranks": [1, 2, 3]},
        {"prompt": "why so", "completions": ["a", "a"], "ranks": [1, 1]},
    ]
    rows = [row | {"owner_id": train} for row in rows] + [good | {"prompt": "valid", "owner_id": valid}]
    data, audit = run(own_data(write(tmp_path / "in", {"comparisons.jsonl": rows})), tmp_path / "out")
    assert [item.prompt.text for item in data.comparisons("train")] == ["good"]
    assert dropped(audit, "comparisons", "train") == {"same_response": 4}
    row = next(row for row in audit["rows"] if (row["role"], row["split"]) == ("comparisons", "train"))
    assert row["examples"] == {"same_response": "comparisons.jsonl:2"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"completions": ["a", "b"], "ranks": [1, 1]},
            r"training comparisons: none of the \d+ rankings orders two different responses \(\d+ ties, 0 of equal texts\)",
        ),
        (
            {"chosen": "a", "rejected": "a"},
            r"found 0 rows of comparisons .* (\d+) of \1 rows of comparisons are left out by the rule same_response: they "
            r"prefer .* the first is comparisons\.jsonl:\d+; compare different responses$",
        ),
    ],
)
def test_comparisons_without_a_signal_are_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    rows = [{"prompt": question(place), **row} for place in range(30)]
    minimum = {"demonstrations": 0, "comparisons": 1, "rl_prompts": 0, "documents": 0, "test_prompts": 0}
    folder = write(
        tmp_path / "in", {"comparisons.jsonl": rows, "pretrain.jsonl": [{"text": f"t{i}"} for i in range(20)]}
    )
    with pytest.raises(DataError, match=message):
        run(own_data(folder, minimum_rows=minimum), tmp_path / "out")


def test_validation_comparisons_without_a_signal_are_refused(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    rows = [
        {"prompt": "one", "chosen": "a", "rejected": "b", "owner_id": train},
        {"prompt": "two", "completions": ["a", "b"], "ranks": [1, 1], "owner_id": valid},
    ]
    with pytest.raises(
        DataError, match=r"none of the 1 validation rankings orders .*raise data_prep\.validation_fraction"
    ):
        run(own_data(write(tmp_path / "in", {"comparisons.jsonl": rows})), tmp_path / "out")


@pytest.mark.parametrize(
    ("prompt", "knobs", "message"),
    [
        (
            "<eos> {}",
            {},
            r"(\d+) of \1 .*by the rule special_token: they spell .*first is demonstrations\.jsonl:\d+; take",
        ),
        (
            "{} very long",
            {"prompt_tokens": 2},
            r"by the rule long_prompt: they have a longer prompt than data_prep\.prompt",
        ),
        ("mail {}@example.com", {}, r"by the rule pii: they hold personal data; .*set data_prep\.drop_pii=false"),
        ("the same for all", {"duplicate_prefix_words": 3}, "found no validation rows|by the rule (duplicate|in_held)"),
    ],
)
def test_the_rule_that_took_most_rows_is_named(
    tmp_path: Path, prompt: str, knobs: dict[str, Any], message: str
) -> None:
    rows = [{"prompt": prompt.format(f"w{place}"), "response": "yes"} for place in range(40)]
    minimum = {"demonstrations": 1, "comparisons": 0, "rl_prompts": 0, "documents": 0, "test_prompts": 0}
    folder = write(tmp_path / "in", {"demonstrations.jsonl": rows})
    with pytest.raises(DataError, match=message) as refused:
        run(own_data(folder, minimum_rows=minimum, **knobs), tmp_path / "out")
    assert "add data or" not in str(refused.value)


def test_data_is_asked_for_where_no_rule_took_any(tmp_path: Path) -> None:
    minimum = {"demonstrations": 500, "comparisons": 0, "rl_prompts": 0, "documents": 0, "test_prompts": 0}
    with pytest.raises(DataError, match=r"at least 500; add data or lower data_prep\.minimum_rows\.demonstrations$"):
        run(own_data(everything(tmp_path / "in"), minimum_rows=minimum), tmp_path / "out")


def test_an_end_token_at_the_end_is_taken_off_and_counted(tmp_path: Path) -> None:
    train, valid = owner_in("train"), owner_in("valid")
    rows = [
        {"prompt": "one", "response": "yes <eos>"},
        {"prompt": "two", "response": "no<eos><eos>\n"},
        {"prompt": "three", "response": "stays \n"},
        {"prompt": "four", "response": " <eos>"},
        {"prompt": "five", "response": "in <eos> between"},
    ]
    rows = [row | {"owner_id": train} for row in rows] + [{"prompt": "v", "response": "x", "owner_id": valid}]
    folder = write(
        tmp_path / "in",
        {
            "demonstrations.jsonl": rows,
            "comparisons.jsonl": [
                {"prompt": "one", "chosen": "a<eos>", "rejected": "b", "owner_id": train},
                {"prompt": "v", "chosen": "a", "rejected": "b", "owner_id": valid},
            ],
            "pretrain.jsonl": [{"text": f"text {place}<eos>"} for place in range(20)],
        },
    )
    data, audit = run(own_data(folder), tmp_path / "out")
    assert [item.response for item in data.demonstrations("train")] == ["yes ", "no", "stays \n"]
    assert dropped(audit, "demonstrations", "train") == {"empty_response": 1, "special_token": 1}
    assert data.comparisons("train")[0].completions == ["a", "b"]
    assert not any("<eos>" in document.text for document in data.documents("train"))
    assert [note for note in audit["notices"] if not note.startswith("tokenizer")] == [
        "demonstrations: 3 of 6 rows end with <eos>, which is taken off; training puts one there anyway",
        "comparisons: 1 of 2 rows end with <eos>, which is taken off; training puts one there anyway",
        "documents: 20 of 20 rows end with <eos>, which is taken off; training puts one there anyway",
    ]


def test_a_layout_may_write_special_tokens_and_data_may_not(tmp_path: Path) -> None:
    rows = [{"prompt": f"{place} what", "response": "that"} for place in range(30)]
    rows.append({"prompt": "sly <eos>", "response": "that", "owner_id": owner_in("train")})
    folder = write(tmp_path / "in", {"demonstrations.jsonl": rows})
    data, audit = run(own_data(folder, prompt_layout="<pad>{prompt}<eos>"), tmp_path / "out")
    assert dropped(audit, "demonstrations", "train") == {"special_token": 1}
    assert data.demonstrations("train")[0].prompt.text.endswith("what<eos>")


def test_documents_that_later_stages_need_are_asked_for_before_anything_trains(tmp_path: Path) -> None:
    folder = everything(tmp_path / "in")
    (folder / "pretrain.jsonl").write_text("")
    (tmp_path / "out").mkdir()
    knobs = ["ppo.gamma", "ppo_init.pretraining_fraction"]
    message = (
        r"found no pretraining documents, expected some because ppo\.gamma and ppo_init\.pretraining_fraction are above 0; "
        r".*set ppo\.gamma=0 ppo_init\.pretraining_fraction=0"
    )
    with pytest.raises(DataError, match=message):
        prepare(own_data(folder), model(), tmp_path / "out", knobs)


def test_rows_that_no_record_was_made_of_are_in_the_account(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"{place} what"}]} for place in range(3)]
    full = [{"prompt": question(place), "response": "x"} for place in range(30)]
    _, audit = run(own_data(write(tmp_path / "in", {"demonstrations.jsonl": [*full, *rows]})), tmp_path / "out")
    row = next(row for row in audit["rows"] if (row["role"], row["split"]) == ("demonstrations", "train"))
    assert row["dropped"]["no_answer"] == 3
    assert row["examples"]["no_answer"] == "demonstrations.jsonl:31"
    assert row["read"] - sum(row["dropped"].values()) == row["kept"]
