"""The labelling page in a real browser: keys alone are enough, nothing overflows, what models write does nothing."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.label.desk import shown_order
from flows.label.tokens import Labelers
from tasks.records.labels import LabelBatch, read_labels
from tests.browser.chromium import Page, chromium
from tests.unit.label.batches import item, written
from tests.unit.label.server import running

pytestmark = pytest.mark.slow
ATTACK = "<script>document.title='caught'</script><img src=x onerror=\"document.title='caught'\">"
LONG = "w" * 400


@pytest.fixture
def batch(tmp_path: Path) -> LabelBatch:
    evil = item("evil", text=ATTACK, responses=[ATTACK, LONG, "", f"{ATTACK}\n{LONG}"])
    return written(tmp_path, item("salt"), evil, item("iron"), instructions=f"{ATTACK}\n\n{LONG}")


@pytest.fixture
def tab(tmp_path: Path, batch: LabelBatch) -> Iterator[Page]:
    with running(tmp_path) as base, chromium(tmp_path / "profile") as page:
        page.open(f"{base}/enter?token={Labelers(tmp_path).add('ann')}")
        ready(page)
        yield page


def ready(tab: Page, more: str = "true") -> None:
    """Wait until the page listens to keys."""
    tab.wait_until(
        f"document.readyState === 'complete' && document.querySelector('.stepwise #form') !== null && {more}"
    )


def stored(batch: LabelBatch, count: int) -> None:
    end = time.monotonic() + 30
    while len(read_labels(batch)) < count:
        assert time.monotonic() < end, "the label was not stored"
        time.sleep(0.1)


def item_shown(tab: Page, batch: LabelBatch) -> str:
    number = int(str(tab.run("location.pathname")).rpartition("/")[2])
    return list(batch.items)[number - 1]


def test_a_label_takes_thirteen_keys_and_every_key_does_what_the_page_tells(tab: Page, batch: LabelBatch) -> None:
    asked = batch.items[item_shown(tab, batch)]
    tab.keys("7", "Enter", "4", "Enter", "4", "Enter", "1", "Enter")
    tab.wait_for("Rank all outputs")
    tab.keys("1", "2", "2", "4", "Enter")
    stored(batch, 1)
    [label] = read_labels(batch)
    order = shown_order("ann", asked)
    assert label.item_id == asked.item_id
    assert [label.quality[which] for which in order] == [7, 4, 4, 1]
    assert [label.ranks[which] for which in order] == [1, 2, 2, 3]
    assert label.flags == [[], [], [], []] and label.seconds is not None and 0 < label.seconds < 60

    # Correct it: other flags, back and forth, another rank by the arrow keys.
    ready(tab, "document.querySelector('#correct') !== null")
    tab.keys("z")
    ready(tab, "document.querySelector('#correct') === null")
    tab.keys("c", "d", "d", "ArrowRight", "k", "ArrowLeft", "j", "Enter", "Enter", "Enter", "Enter")
    tab.keys("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown", "1")
    assert tab.run("document.querySelector('#order').textContent") == "A = D > B = C"
    tab.keys("Enter")
    ready(tab, "document.querySelector('#correct') !== null")
    [label] = read_labels(batch)
    assert [label.flags[which] for which in order] == [["hallucination", "opinion"], ["moral_judgement"], [], []]
    assert [label.ranks[which] for which in order] == [1, 2, 2, 1]

    # Skip the next one.
    tab.keys("s", "2")
    stored(batch, 2)
    assert {it.skipped for it in read_labels(batch)} == {None, "The request contains personal data"}


def test_what_is_missing_is_asked_for_and_a_reload_keeps_the_rest(tab: Page, batch: LabelBatch) -> None:
    tab.keys("6", "e", "Enter", "Enter", "3", "Enter", "3", "Enter", "2", "Enter")
    tab.wait_for("Choose the quality of this output.", "Output B")
    tab.run("location.reload()")
    ready(tab, "document.querySelectorAll('input:checked').length === 5")
    tab.keys("Enter", "5", "Enter", "Enter", "Enter")
    tab.wait_for("Rank all outputs")
    tab.keys("Enter")
    tab.wait_for("Rank every output; equal ranks are ties.")
    assert read_labels(batch) == []
    tab.keys("1", "1", "1", "Enter")
    stored(batch, 1)
    assert read_labels(batch)[0].ranks.count(2) == 1  # the marked output kept its 2


def test_another_reason_is_typed(tab: Page, batch: LabelBatch) -> None:
    tab.keys("s")
    tab.run("document.querySelector('[name=other_reason]').focus()")
    tab.keys("z", "1", "s", "Enter")
    stored(batch, 1)
    assert read_labels(batch)[0].skipped == "z1s"


def test_a_key_that_is_held_down_is_one_answer(tab: Page, batch: LabelBatch) -> None:
    for _ in range(4):
        tab.keys("4", "Enter")
    tab.wait_for("Rank all outputs")
    tab.held("2", times=5)
    assert tab.run("document.querySelectorAll('[name^=rank-]:checked').length") == 1
    tab.held("k", times=4)
    assert tab.run("document.querySelectorAll('[name^=flag-]:checked').length") == 0
    tab.keys("ArrowLeft")
    tab.held("k", times=4)
    assert tab.run("document.querySelectorAll('[name^=flag-]:checked').length") == 1


def test_enter_that_chooses_a_character_does_not_skip_the_item(tab: Page, batch: LabelBatch) -> None:
    tab.keys("s")
    script = """composing => {
        const place = document.querySelector("[name=other_reason]");
        place.value = "\u6f22";
        const key = new KeyboardEvent("keydown", {key: "Enter", isComposing: composing, bubbles: true, cancelable: true});
        place.dispatchEvent(key);
        return key.defaultPrevented;
    }"""
    assert tab.run(f"({script})(true)") is False
    assert read_labels(batch) == []
    assert tab.run(f"({script})(false)") is True
    stored(batch, 1)
    assert read_labels(batch)[0].skipped == "\u6f22"


def test_the_mouse_is_enough_too(tab: Page, batch: LabelBatch) -> None:
    for place in range(4):
        tab.run(f"document.querySelector('[name=quality-{place}][value=\"3\"]').click()")
        tab.run(f"document.querySelector('[name=rank-{place}][value=\"{place + 1}\"]').click()")
    tab.run("document.querySelector('#submit').click()")
    stored(batch, 1)
    assert sorted(read_labels(batch)[0].ranks) == [1, 2, 3, 4]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_fits_and_what_models_write_does_nothing(
    tab: Page, batch: LabelBatch, width: int, scheme: str, tmp_path: Path
) -> None:
    tab.size(width, 900)
    tab.scheme(scheme)
    tab.open(f"{tab.run('location.origin')}/batch/first/2")
    ready(tab, "location.pathname.endsWith('/2')")
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    for step in range(5):
        assert tab.run(fits), f"step {step} is wider than {width}"
        assert tab.run("document.querySelectorAll('.step.now').length") == 1
        tab.screenshot(tmp_path / f"{scheme}-{width}-{step}.png")
        tab.keys("ArrowRight")
    tab.keys("s")
    assert tab.run(fits)
    assert "caught" not in str(tab.run("document.title"))
    assert tab.run("document.images.length") == 0 and tab.run("document.scripts.length") == 1
    assert tab.run("[...document.scripts].every(it => it.src.startsWith(location.origin))")
    dark = tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")


def test_without_scripts_the_form_works(tab: Page, batch: LabelBatch) -> None:
    tab.scripts(False)
    tab.open(f"{tab.run('location.origin')}/batch/first/1")
    tab.wait_for("Output A", "Output D", "Rank all outputs")
    for place in range(4):
        tab.run(f"document.querySelector('[name=quality-{place}][value=\"3\"]').checked = true")
        tab.run(f"document.querySelector('[name=rank-{place}][value=\"1\"]').checked = true")
    tab.run("document.querySelector('#submit').click()")
    stored(batch, 1)
    assert read_labels(batch)[0].ranks == [1, 1, 1, 1]
