import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tasks.language.text import decode_response, encode_prompt, encode_response
from tasks.language.vocabulary import rows_for_text, rows_with_text
from tests.unit.language.chat_templates import FAMILIES as CHATS
from tests.unit.language.chat_templates import chat_tokenizer
from tests.unit.tiny import bpe_tokenizer, metaspace_tokenizer, word_tokenizer

TOKENIZERS = {"word": word_tokenizer(), "bpe": bpe_tokenizer(), "metaspace": metaspace_tokenizer()}
PROMPT, RESPONSE = "q : what color is the cat ? a :", "the cat is red ."


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_prompt_and_response_join_as_one_text(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    joined = encode_prompt(tokenizer, PROMPT, 100) + encode_response(tokenizer, RESPONSE, PROMPT)
    assert joined == [*tokenizer(f"{PROMPT} {RESPONSE}", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("response", ["", "red", RESPONSE, "the dog is not big , and it is blue ."])
@pytest.mark.point(7)
def test_round_trip(kind: str, response: str) -> None:
    tokenizer = TOKENIZERS[kind]
    if kind == "word" and "it" in response:
        response = response.replace("it", "not")
    assert decode_response(tokenizer, encode_response(tokenizer, response, PROMPT), PROMPT) == response


@pytest.mark.parametrize("response", ["\n- item", "two spaces  ", "café naïve 123\n", "1 .5 ,a 's"])
def test_bytes_survive_bpe(response: str) -> None:
    tokenizer = TOKENIZERS["bpe"]
    assert decode_response(tokenizer, encode_response(tokenizer, response, PROMPT), PROMPT) == response


@pytest.mark.parametrize(
    ("before", "response", "as_text"),
    [
        ("Assistant:", "Lily", "Assistant: Lily"),
        ("Assistant:", " Lily", "Assistant: Lily"),
        ("Assistant:", "\nLily", "Assistant:\nLily"),
        ("A:\n", "Lily", "A:\nLily"),
        ("A: ", "Lily", "A: Lily"),
        ("A:\n", " Lily", "A:\n Lily"),
        ("<|assistant|>", "Lily", "<|assistant|>Lily"),
        ("", "Lily", "Lily"),
    ],
)
def test_one_space_and_no_second_one_comes_before_a_response(before: str, response: str, as_text: str) -> None:
    tokenizer = bpe_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|assistant|>"]})
    ids = encode_response(tokenizer, response, before)
    assert before + tokenizer.decode(ids[:-1]) == as_text
    again = decode_response(tokenizer, ids, before)
    assert encode_response(tokenizer, again, before) == ids


def test_sampled_spaces_are_read_back_as_they_were() -> None:
    tokenizer = TOKENIZERS["bpe"]
    for before in ("A:", "A:\n", ""):
        for said in (" ", "  red", " red", "\n", " \n red"):
            ids = [*tokenizer(said, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            assert encode_response(tokenizer, decode_response(tokenizer, ids, before), before) == ids


def test_rows_that_an_embedding_needs() -> None:
    tokenizer = bpe_tokenizer()
    words = len(tokenizer)
    assert rows_for_text(tokenizer) == rows_with_text(tokenizer) == words
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    assert (rows_for_text(tokenizer), rows_with_text(tokenizer)) == (words, words + 1)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    assert (rows_for_text(tokenizer), rows_with_text(tokenizer)) == (words, words + 1)
    tokenizer.add_tokens(["plumbline"])
    assert rows_for_text(tokenizer) == rows_with_text(tokenizer) == words + 3


def test_a_start_token_that_the_text_holds_already_is_not_added_again() -> None:
    tokenizer = chat_tokenizer(CHATS["llama3"])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", int(tokenizer.bos_token_id))]
    )
    written = encode_prompt(tokenizer, CHATS["llama3"].one_turn, 1000)
    assert written.count(tokenizer.bos_token_id) == 1
    assert written == tokenizer(CHATS["llama3"].one_turn, add_special_tokens=False)["input_ids"]
    assert encode_prompt(tokenizer, "Hi", 1000)[0] == tokenizer.bos_token_id


def test_decoding_stops_at_the_first_eos() -> None:
    tokenizer = TOKENIZERS["word"]
    ids = encode_response(tokenizer, "the cat", PROMPT)
    assert decode_response(tokenizer, ids + encode_response(tokenizer, "is red", PROMPT), PROMPT) == "the cat"
    assert decode_response(tokenizer, ids[:-1], PROMPT) == "the cat"


def test_other_special_tokens_stay_visible() -> None:
    tokenizer = TOKENIZERS["word"]
    ids = [tokenizer.pad_token_id, *encode_response(tokenizer, "red", PROMPT)]
    assert decode_response(tokenizer, ids, PROMPT) == "<pad> red"


def test_a_long_prompt_keeps_its_end() -> None:
    tokenizer = TOKENIZERS["word"]
    assert tokenizer.decode(encode_prompt(tokenizer, PROMPT, 3)) == "? a :"


def with_start_token() -> PreTrainedTokenizerFast:
    tokenizer = bpe_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.add_bos_token = True
    return tokenizer


def test_a_start_token_may_come_from_a_template_of_the_tokenizer() -> None:
    """As in Llama 3, whose tokenizer has no setting for it."""
    tokenizer = bpe_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    start = tokenizer.bos_token_id
    assert encode_prompt(tokenizer, PROMPT, 100)[0] != start
    by_template = bpe_tokenizer()
    by_template.add_special_tokens({"bos_token": "<bos>"})
    by_template.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", start)]
    )
    assert not getattr(by_template, "add_bos_token", False)
    assert encode_prompt(by_template, PROMPT, 100) == [start, *encode_prompt(tokenizer, PROMPT, 100)]


def test_a_start_token_comes_first_even_when_the_prompt_is_cut() -> None:
    tokenizer = with_start_token()
    whole = encode_prompt(tokenizer, PROMPT, 100)
    assert whole[0] == tokenizer.bos_token_id and whole[1:] == encode_prompt(TOKENIZERS["bpe"], PROMPT, 100)
    assert encode_prompt(tokenizer, PROMPT, 3) == [whole[0], *whole[-2:]]
    assert tokenizer.bos_token_id not in encode_response(tokenizer, RESPONSE, PROMPT)
