"""Every field of the configuration, given what it cannot use: refused in a sentence with its full key, never a traceback."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from mlflow.utils.validation import (
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)
from omegaconf import OmegaConf

from flows.ask.flags import take_flags
from flows.config import RLHFConfig, composed, load, parse
from flows.evaluate_config import EvaluateConfig
from flows.study.config import StudyConfig
from tasks.data_prep.sources.folder import benchmark_task
from tasks.engine.config import Config
from tasks.engine.errors import ConfigError, DataError
from tasks.engine.urls import without_password

SECRET = "https://somebody:hunter2@example.org:5000/path"
NUMBERS = (float("inf"), float("-inf"), float("nan"), "inf", "NaN", True, False, 2**64, -(2**64), str(2**64))
TEXTS = ("null\0byte", "half \ud800", SECRET)
ODD = (
    "",
    " ",
    "a/b",
    "a:b",
    "it's",
    'say "x"',
    "ä ö",
    "x" * 5000,
    "../..",
    "two\nlines",
    "100 %",
    "🐟",
    "latest",
    "v1",
    "-1",
    "[]",
)


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    plain = OmegaConf.to_container(composed(), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, item in value.items():
        yield (*path, key), item
        if isinstance(item, dict):
            yield from leaves(item, (*path, key))


def with_value(values: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    group = changed
    for key in path[:-1]:
        group = group[key]
    group[path[-1]] = value
    return changed


def refusal(values: dict[str, Any], path: tuple[Any, ...], value: Any) -> str | None:
    """The sentence about one changed value; None when it is accepted. Anything but a ``ConfigError`` fails the test."""
    try:
        parsed = parse(with_value(values, path, value))
    except ConfigError as error:
        assert ".".join(map(str, path[:1])) in str(error)
        return str(error)
    json.dumps(parsed.model_dump(mode="json"), allow_nan=False).encode("utf-8")  # usable: pages and databases keep it
    return None


def test_numbers(values: dict[str, Any]) -> None:
    checked = 0
    for path, found in leaves(values):
        if isinstance(found, int | float) and not isinstance(found, bool):
            for bad in NUMBERS:
                sentence = refusal(values, path, bad)
                spelled = ".".join(path), f"{'.'.join(path[:-1])}: {path[-1]}"  # the latter in a mapping
                assert sentence is not None and any(key in sentence for key in spelled), (path, bad)
                checked += 1
    assert checked > 1000


def test_texts(values: dict[str, Any]) -> None:
    checked = 0
    for path, found in leaves(values):
        if isinstance(found, str):
            for bad in TEXTS:
                sentence = refusal(values, path, bad)
                assert sentence is not None and ".".join(path) in sentence and "hunter2" not in sentence, (path, bad)
            for odd in ODD:
                refusal(values, path, odd)
            checked += 1
    assert checked > 30


def test_groups(values: dict[str, Any]) -> None:
    for path, found in leaves(values):
        if isinstance(found, dict) and found:
            for bad in (3, True, "text", [1], None):
                refusal(values, path, bad)


def test_no_configuration_class_takes_a_flag_for_a_number_or_an_endless_one() -> None:
    """Fields that are null by default have no number to change above."""
    kinds, waiting = set[type[Config]](), [Config]
    while waiting:
        new = set(waiting.pop().__subclasses__()) - kinds
        kinds, waiting = kinds | new, [*waiting, *new]
    assert {EvaluateConfig, StudyConfig, RLHFConfig} <= kinds
    for kind in kinds:
        for name, field in kind.model_fields.items():
            if field.annotation in (int, float, int | None, float | None):
                for bad in NUMBERS:
                    with pytest.raises(ValueError) as refused:
                        kind.model_validate({name: bad})
                    errors = refused.value.errors()  # type: ignore[attr-defined]
                    assert [item for item in errors if item["loc"] == (name,)], (kind, name, bad)


@pytest.mark.parametrize("override", ["ppo=3", "ppo=null", "ppo=[1]", "ppo=true", "model=[[]]", "ppo={a:1}"])
def test_a_group_on_the_command_line(override: str) -> None:
    with pytest.raises(
        ConfigError, match=r"is a group; choose one of its files, \w+=NAME, or a value in it"
    ) as refused:
        load(["seed=2", override])
    assert override in str(refused.value)


def test_an_interpolation_of_nothing_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^nothing: not there, and ppo\.beta is computed from it"):
        load(["ppo.beta=${nothing}"])


@pytest.mark.parametrize("name", ["a/b", "a:b", "it's", 'a"b', "", " x", "x" * 300, "a\nb"])
def test_names_that_cannot_be_registered(values: dict[str, Any], name: str) -> None:
    sentence = refusal(values, ("evaluation", "gate", "model_name"), name)
    assert sentence is not None and "evaluation.gate.model_name: found" in sentence


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v1", "V12", "a b", "a/b", "", "x" * 300])
def test_aliases_that_mlflow_refuses(values: dict[str, Any], alias: str) -> None:
    sentence = refusal(values, ("evaluation", "gate", "alias"), alias)
    assert sentence is not None and "evaluation.gate.alias: found" in sentence


def test_what_is_accepted_mlflow_accepts(values: dict[str, Any]) -> None:
    limited = with_value(values, ("evaluation", "gate", "min_win_rate"), 0.5)
    for odd in (*ODD, "Champion-2", "policy 7.1"):
        if refusal(limited, ("evaluation", "gate", "model_name"), odd) is None:
            _validate_model_name(odd)
        if refusal(limited, ("evaluation", "gate", "alias"), odd) is None:
            _validate_model_alias_name(odd)
            _validate_model_alias_name_reserved(odd)
    assert refusal(limited, ("evaluation", "gate", "model_name"), "policy 7.1") is None
    assert refusal(limited, ("evaluation", "gate", "alias"), "Champion-2") is None


@pytest.mark.parametrize("name", ["arc (easy).jsonl", "benchmarks/50%.jsonl", "benchmarks/ä:b.jsonl", "what?.jsonl"])
def test_benchmark_files_whose_name_is_no_name_of_a_figure(name: str) -> None:
    with pytest.raises(DataError, match="rename the file"):
        benchmark_task(name)
    assert benchmark_task("benchmarks/arc-easy_2.test.jsonl") == "arc-easy_2"


@pytest.mark.parametrize(
    "argument",
    [
        f"tracking.mlflow_uri={SECRET}",
        "+evaluation.judges.chat.base_url=http://a:hunter2@b/v1",
        "tracking.mlflow_uri=postgresql://a:hunter2@b/mlflow,sqlite:///x",
        "ppo.beta='mysql+pymysql://a:hunter2@b'",
        "tracking.mlflow_uri='postgresql://b/mlflow?user=a&password=hunter2'",
        "tracking.mlflow_uri='http://b:5000/?sslpassword=hunter2&x=1'",
    ],
)
def test_a_password_is_refused_before_hydra_writes_it_down(argument: str) -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as refused:
        take_flags([argument])
    assert "hunter2" not in str(refused.value)
    key = argument.partition("=")[0].lstrip("+")
    assert str(refused.value).startswith(f"{key}: ")


def test_addresses_without_a_password_are_no_secret() -> None:
    for argument in ("tracking.mlflow_uri=postgresql://me@127.0.0.1:5432/mlflow", "tracking.mlflow_uri=http://h:5000"):
        assert take_flags([argument]) == [argument]


def test_a_password_in_a_query_is_not_shown() -> None:
    shown = without_password("no answer from postgresql://b/m?user=a&password=hunter2&sslmode=require (refused)")
    assert shown == "no answer from postgresql://b/m?user=a&password=***&sslmode=require (refused)"


@pytest.mark.parametrize("uri", ["", "ftp://h", "mlruns", "file:///tmp/mlruns", "localhost:5000", "http://"])
def test_addresses_that_no_tracking_store_has(values: dict[str, Any], uri: str) -> None:
    sentence = refusal(values, ("tracking", "mlflow_uri"), uri)
    assert sentence is not None and f"tracking.mlflow_uri: found {uri!r}, expected null" in sentence


@pytest.mark.parametrize("uri", [None, "http://h", "sqlite:///x.db", "postgresql+psycopg2://me@h/db", "databricks"])
def test_addresses_of_tracking_stores(values: dict[str, Any], uri: str | None) -> None:
    assert refusal(values, ("tracking", "mlflow_uri"), uri) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "results",
        "/mnt/results",
        "s3:/bucket",
        "s3://",
        "s3:///x",
        "s3://b/x//y",
        "s3://b/*",
        "gs://b",
        "file://x/y",
    ],
)
def test_addresses_where_nothing_is_shared(values: dict[str, Any], address: str) -> None:
    sentence = refusal(values, ("tracking", "store"), address)
    assert sentence is not None and f"tracking.store: found {address!r}, expected null" in sentence


@pytest.mark.parametrize("address", ["s3://AKIAHUNTER2@bucket/x", "s3://b/x?secret=hunter2"])
def test_an_address_with_a_key_is_refused_and_not_repeated(values: dict[str, Any], address: str) -> None:
    sentence = refusal(values, ("tracking", "store"), address)
    assert sentence is not None and "into the environment: " in sentence and "hunter2" not in sentence.lower()


@pytest.mark.parametrize("address", [None, "s3://bucket", "s3://my-bucket.x/a/b_c", "file:///mnt/shared results"])
def test_addresses_to_share_at(values: dict[str, Any], address: str | None) -> None:
    assert refusal(values, ("tracking", "store"), address) is None


def test_an_address_is_no_folder(values: dict[str, Any]) -> None:
    sentence = refusal(values, ("tracking", "root"), "s3://bucket/x")
    assert sentence is not None and "give an address to share results at as tracking.store" in sentence


@pytest.mark.parametrize("role", ["demonstrations", "comparisons", "rl_prompts", "test_prompts"])
def test_a_role_that_every_run_needs_is_not_optional(values: dict[str, Any], role: str) -> None:
    sentence = refusal(values, ("data_prep", "minimum_rows", role), 0)
    assert sentence is not None and f"data_prep.minimum_rows.{role} is 0, expected at least 1" in sentence
    assert refusal(values, ("data_prep", "minimum_rows", "documents"), 0) is None


def test_a_key_in_the_place_of_a_variables_name_is_not_repeated(values: dict[str, Any]) -> None:
    chat = {"api_key_env": "sk-hunter2-hunter2"}
    sentence = refusal(values, ("evaluation", "judges", "chat"), chat)
    assert sentence is not None and "evaluation.judges.chat.api_key_env: expected the NAME" in sentence
    assert "hunter2" not in sentence
