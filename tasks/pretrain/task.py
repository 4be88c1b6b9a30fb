"""The base model as a task."""

import torch

from tasks.engine.stage import Metrics, Workshop
from tasks.language.inspect import context_of, make_fit
from tasks.language.models import load_policy, new_causal_lm, save_policy
from tasks.language.packing import encode_documents, pack_documents
from tasks.language.shards import whole
from tasks.pretrain.job import PretrainJob
from tasks.pretrain.train import PretrainLearner, valid_metrics, validation_loss
from tasks.records.data import PreparedData


def train_base(shop: Workshop, config: PretrainJob) -> Metrics:
    """Adopt the model that the configuration names, or build one and train it on the pretraining text."""
    data = PreparedData(shop.input("data"))
    model_config, knobs = config.model, config.pretrain
    tokenizer = data.tokenizer()
    if model_config.name_or_path is not None:
        model = load_policy(model_config.name_or_path, shop.runtime.device, revision=model_config.revision)
        make_fit(model, tokenizer, model_config.name_or_path)
    else:
        assert model_config.architecture is not None
        model = new_causal_lm(model_config.architecture, tokenizer, model_config.context_tokens, knobs.seed)
        model.to(shop.runtime.device)
    end = int(tokenizer.eos_token_id)
    valid = [document.text for document in data.documents("valid")]
    # A model that is adopted needs no text of its own; without any, it is not measured here.
    row_tokens = (
        knobs.row_tokens if knobs.steps else min(knobs.row_tokens, context_of(model.config) or knobs.row_tokens)
    )
    held_out = pack_documents(encode_documents(tokenizer, valid), row_tokens, end) if valid else None
    if knobs.steps:
        documents = data.documents("train")
        shop.uses(data.file("documents", "train"), "documents/train", len(documents), "training")
        texts = (document.text for document in documents)
        rows = pack_documents(encode_documents(tokenizer, texts), knobs.row_tokens, end)
        learner = PretrainLearner(model, rows, knobs, shop.runtime, valid_rows=held_out)
        for _ in shop.train(learner):
            pass
        model = whole(model)
    save_policy(model, tokenizer, shop.folder / "policy")
    measured = {} if held_out is None else valid_metrics(validation_loss(model.eval(), held_out, shop.runtime))
    return measured | {
        "model/parameters": float(sum(weight.numel() for weight in model.parameters())),
        "model/vocabulary": float(len(tokenizer)),
        "model/device_is_gpu": float(torch.device(shop.runtime.device).type == "cuda"),
    }
