"""Packed rows and the cursor that draws them."""

from collections.abc import Iterator

import pytest
import torch

from tasks.engine.errors import DataError
from tasks.language import packing
from tasks.language.packing import RowCursor, encode_documents, pack_documents
from tests.unit import tiny_models as tiny


def test_documents_are_joined_by_eos_and_cut_into_full_rows() -> None:
    rows = pack_documents([[1, 2, 3], [], [4], [5, 6, 7, 8]], row_tokens=4, eos_id=0)
    assert rows.tolist() == [[1, 2, 3, 0], [4, 0, 5, 6]]  # 7, 8, 0 do not fill a row


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="3 tokens do not fill one row of 64"):
        pack_documents([[1, 2]], row_tokens=64, eos_id=0)


def cursor(seed: int, rows: int = 10) -> RowCursor:
    return RowCursor(torch.arange(rows).unsqueeze(1), torch.Generator().manual_seed(seed))


def test_every_pass_visits_every_row_once_in_another_order() -> None:
    drawn = cursor(1).draw(30).flatten().tolist()
    passes = [drawn[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert passes[0] != passes[1]


def test_how_rows_are_asked_for_does_not_matter() -> None:
    piecewise = cursor(1)
    pieces = torch.cat([piecewise.draw(count) for count in (3, 0, 2, 7, 13)])
    assert torch.equal(pieces, cursor(1).draw(25))


def test_cursor_goes_on_where_it_was_saved() -> None:
    original = cursor(1)
    original.draw(13)
    resumed = cursor(99)
    resumed.load_state_dict(original.state_dict())
    assert torch.equal(resumed.draw(40), original.draw(40))


def test_state_of_other_data_is_refused() -> None:
    with pytest.raises(DataError, match="has 10 rows, the data has 7"):
        cursor(1, rows=7).load_state_dict(cursor(1).state_dict())


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="expected shape"):
        RowCursor(torch.empty(0, 8, dtype=torch.long), torch.Generator())


def test_documents_are_encoded_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "DOCUMENTS", 2)
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for text in ("the", "cat the", "", "the", "cat"):
            taken += 1
            yield text

    encoded = encode_documents(tiny.tokenizer(), texts())
    first = next(encoded)
    assert taken == 2
    whole = [
        tiny.tokenizer()(text, add_special_tokens=False)["input_ids"] for text in ("the", "cat the", "", "the", "cat")
    ]
    assert [first, *encoded] == whole
