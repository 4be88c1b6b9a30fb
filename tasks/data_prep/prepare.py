"""Stand-in."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tasks.config import ModelConfig
from tasks.data import write_rows
from tasks.data_prep.config import DataPrepConfig
from tasks.sandbox.benchmarks import benchmark_items
from tasks.sandbox.corpus import documents
from tasks.sandbox.demonstrations import demonstrations
from tasks.sandbox.prompts import prompts
from tasks.sandbox.safety import toxicity_prompts
from tasks.sandbox.world import World


def prepare(config: DataPrepConfig, model: ModelConfig, folder: Path) -> dict[str, float]:
    world = World.from_seed(config.seed)
    box = config.sandbox
    docs = documents(world, box.documents, config.seed)
    cut = len(docs) - len(docs) // 50
    (folder / "world.json").write_text(json.dumps(world.to_json(), sort_keys=True))
    sft = prompts(world, box.demonstrations, config.seed + 10, 0.0)
    compare = prompts(world, box.comparison_prompts, config.seed + 20, 0.0)
    rl = prompts(world, box.rl_prompts, config.seed + 30, 0.0)
    test = prompts(world, box.test_prompts, config.seed + 40, box.held_out_share)
    seen = {p.text for p in test}
    sft = [p for p in sft if p.text not in seen]
    compare = [p for p in compare if p.text not in seen]
    rl = [p for p in rl if p.text not in seen]
    demos = demonstrations(world, sft, config.seed)
    vocab = {"<pad>": 0, "<eos>": 1, "<unk>": 2}
    for text in [d.text for d in docs] + [d.prompt.text + " " + d.response for d in demos]:
        for word in text.split():
            vocab.setdefault(word, len(vocab))
    t = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>").save_pretrained(
        folder / "tokenizer"
    )
    write_rows(folder, "documents-train", docs[:cut])
    write_rows(folder, "documents-valid", docs[cut:])
    for name, rows in (("demonstrations", demos), ("comparison_prompts", compare), ("rl_prompts", rl)):
        k = len(rows) - max(2, len(rows) // 10)
        write_rows(folder, f"{name}-train", rows[:k])
        write_rows(folder, f"{name}-valid", rows[k:])
    write_rows(folder, "test_prompts", test)
    write_rows(folder, "benchmarks", benchmark_items(world, box.benchmark_items_per_task, config.seed))
    write_rows(folder, "toxicity_prompts", toxicity_prompts(world, box.toxicity_prompts, config.seed))
    (folder / "audit.json").write_text("[]\n")
    return {"vocabulary": float(len(vocab)), "documents": float(len(docs))}
