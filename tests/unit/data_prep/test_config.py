import pytest

from flows.config import load
from tasks.data_prep.config import DataPrepConfig
from tests.unit.data_prep.samples import values


@pytest.mark.parametrize("name", ["sandbox", "own_data", "hub"])
def test_the_shipped_values_are_valid(name: str) -> None:
    assert DataPrepConfig(**values(name)).max_prompts_per_owner == 200


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sandbox", {"sandbox": None}, "source is sandbox, so sandbox must be given; set data_prep.sandbox"),
        ("sandbox", {"folder": "x"}, "source is sandbox, which does not read folder; set data_prep.folder=null"),
        ("own_data", {"folder": None}, "source is folder, so folder must be given"),
        ("own_data", {"files": None}, "source is folder, so files must be given"),
        ("hub", {"hub": {}}, "source is hub, so hub must be given"),
        ("own_data", {"prompt_layout": "Human:"}, "prompt_layout is 'Human:'; it must contain {prompt} exactly once"),
        (
            "own_data",
            {"validation_fraction": 0.6, "test_fraction": 0.4},
            r"validation_fraction \(0.6\) \+ test_fraction \(0.4\) leave nothing to train on",
        ),
        ("own_data", {"max_prompts_per_owner": 0}, "greater than 0"),
    ],
)
def test_mistakes(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataPrepConfig(**values(name, **changes))


def test_where_is_typed_as_it_is_written() -> None:
    typed = [
        "experiment=own_data",
        "data_prep.folder=x",
        "model.name_or_path=y",
        "data_prep.files.where={license: [mit, null]}",
    ]
    files = load(typed).data_prep.files
    assert files is not None
    assert files.where == {"license": ["mit", None]}
