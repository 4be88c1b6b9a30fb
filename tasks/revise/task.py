"""Demonstrations by critique and revision as a task."""

import json
import shutil
from collections.abc import Sequence

from tasks.chat.model import ChatModel, answer_cache
from tasks.engine.errors import DataError
from tasks.engine.stage import Metrics, Workshop
from tasks.language.readable import reader
from tasks.language.text import encode_response
from tasks.records.data import PreparedData, PreparedRecords, Split, write_prepared_data
from tasks.records.records import Demonstration
from tasks.revise.config import ReviseConfig
from tasks.revise.revise import KNOB, WITHOUT, Step, changed, revise

REVISIONS = "revisions.jsonl"


def revise_demonstrations(shop: Workshop, config: ReviseConfig) -> Metrics:
    """The prepared data with more demonstrations: responses that a chat model has criticised and revised.

    The artifact is prepared data like its input, with ``revisions.jsonl``: what the model wrote at every step.
    """
    data = PreparedData(shop.input("data"))
    tokenizer = data.tokenizer()
    role = data.comparison_prompts if config.prompts_from == "comparison_prompts" else data.rl_prompts
    prompts = {prompt.prompt_id: prompt for prompt in role("train")[: config.prompts]}
    if not prompts:
        raise DataError(
            f"revise.prompts_from: found no {config.prompts_from} in the train split, expected some to respond to; use the other "
            "role, or revise.prompts=0"
        )
    readable = reader(tokenizer)
    model: ChatModel[Step] = ChatModel(config.chat, answer_cache(shop.store.root.parent), KNOB, WITHOUT)
    found = revise({name: readable(prompt.text) for name, prompt in prompts.items()}, model, config)
    made = [
        Demonstration(prompt=prompts[name], response=one.revisions[-1], labeler_id=f"revised:{config.chat.model}")
        for name, one in found.items()
        if len(encode_response(tokenizer, one.revisions[-1], prompts[name].text)) <= config.response_tokens
    ]
    shutil.copytree(shop.input("data"), shop.folder, dirs_exist_ok=True)
    demonstrations: dict[Split, Sequence[Demonstration]] = {
        "train": [*data.demonstrations("train"), *made],
        "valid": data.demonstrations("valid"),
    }
    write_prepared_data(shop.folder, PreparedRecords(demonstrations=demonstrations), tokenizer)
    rows = [json.dumps({"prompt_id": name, **one._asdict()}, ensure_ascii=False) for name, one in found.items()]
    (shop.folder / REVISIONS).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    sent, received = model.tokens
    shop.log.metrics(
        {"revise/requests": model.requests, "revise/prompt_tokens": sent, "revise/completion_tokens": received}
    )
    return {
        "revise/demonstrations": float(len(made)),
        "revise/lost": float(len(prompts) - len(found)),
        "revise/too_long": float(len(found) - len(made)),
        "revise/changed": changed(list(found.values())) if found else 0.0,
    }
