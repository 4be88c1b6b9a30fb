from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from tasks.engine.errors import ConfigError, DataError, ModelError
from tasks.measure.safety import SafetyClassifier, WordList, bias_entropy, toxicity_scorer
from tasks.measure.toxicity_config import ToxicityConfig
from tests.unit import tiny_models


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier with random weights and two labels."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_models.WORDS),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=16,
        pad_token_id=0,
        id2label={0: "fine", 1: "toxic"},
        label2id={"fine": 0, "toxic": 1},
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


def test_word_list_matches_whole_words_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Fool\n\n  shut   up \nfool\nc++\n")
    scores = WordList(path).score(["you FOOL .", "foolish plan", "Shut\nup!", "shut it up", "c++!", ""])
    assert scores == [1, 0, 1, 0, 1, 0]


def test_the_scorers_name_changes_with_the_list(tmp_path: Path) -> None:
    one, other, reordered = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    one.write_text("fool\nidiot\n")
    other.write_text("fool\n")
    reordered.write_text("idiot\nfool\n\n")
    assert WordList(one).name != WordList(other).name
    assert WordList(one).name == WordList(reordered).name


def test_classifier_gives_the_probability_of_its_label(classifier: Path) -> None:
    texts = ["the cat", "red red big", "", "is the small blue cat"]
    scorer = SafetyClassifier(classifier, "toxic", "cpu")
    found = scorer.score(texts)
    model = LlamaForSequenceClassification.from_pretrained(classifier)
    for text, score in zip(texts, found, strict=True):
        if text:
            ids = torch.tensor([[tiny_models.WORDS.index(word) for word in text.split()]])
            expected = model(ids).logits.softmax(-1)[0, 1].item()
            assert score == pytest.approx(expected, abs=1e-6)
    assert found[2] == 0.0
    assert SafetyClassifier(classifier, "fine", "cpu").score(texts)[0] == pytest.approx(1 - found[0], abs=1e-6)
    assert scorer.name.startswith("classifier-") and scorer.name.endswith("-toxic")


def test_a_classifier_with_independent_labels_uses_a_sigmoid(classifier: Path, tmp_path: Path) -> None:
    model = LlamaForSequenceClassification.from_pretrained(classifier)
    model.config.problem_type = "multi_label_classification"
    model.save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    ids = torch.tensor([[tiny_models.WORDS.index("cat")]])
    expected = model(ids).logits.sigmoid()[0, 1].item()
    assert SafetyClassifier(tmp_path, "toxic", "cpu").score(["cat"]) == [pytest.approx(expected, abs=1e-6)]


def test_an_unknown_label_lists_the_known_ones(classifier: Path) -> None:
    with pytest.raises(ConfigError, match=r"\['fine', 'toxic'\], not 'rude'"):
        SafetyClassifier(classifier, "rude", "cpu")


def test_a_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no safetensors classifier"):
        SafetyClassifier(tmp_path, "toxic", "cpu")


def test_an_empty_or_missing_word_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(ConfigError, match="is empty"):
        WordList(tmp_path / "empty")
    with pytest.raises(ConfigError, match="cannot read the word list"):
        WordList(tmp_path / "missing")


def test_sandbox_words_and_none() -> None:
    def config(scorer: str) -> ToxicityConfig:
        return ToxicityConfig.model_validate(
            {"scorer": scorer, "path": None, "toxic_label": None, "layouts": ["basic"], "perspective": None}
        )

    assert toxicity_scorer(config("none"), "cpu") is None
    scorer = toxicity_scorer(config("sandbox_words"), "cpu")
    assert scorer is not None
    assert scorer.name == "sandbox_words"
    assert scorer.score(["shut up , idiot .", "i am fine ."]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("word_list", None, None), "path must name"),
        (("classifier", "folder", None), "toxic_label must name"),
        (("none", "file", None), "reads neither"),
        (("word_list", "file", "toxic"), "does not read toxic_label"),
    ],
)
def test_settings_that_nothing_reads_are_refused(values: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given = dict(zip(("scorer", "path", "toxic_label"), values, strict=True))
        ToxicityConfig.model_validate({**given, "layouts": ["basic"], "perspective": None})


def test_bias_entropy_has_no_underflow_and_needs_alternatives() -> None:
    assert bias_entropy([-5000.0, -5000.0]) == pytest.approx(1.0)
    assert bias_entropy([0.0, -5000.0]) == pytest.approx(0.0)
    assert bias_entropy([-3.0] * 4) == pytest.approx(2.0)
    with pytest.raises(DataError, match="1 alternative"):
        bias_entropy([-1.0])
