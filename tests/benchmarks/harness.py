"""What the evaluation harness adds to the time of the model's own forward passes.

    python -m tests.benchmarks.harness [--folder JSONL] [--limit N] [--shots few|zero] [--tasks NAME ...]

A random Llama of about 3 million parameters (the shape of conf/model/scratch.yaml) answers the suite. Hooks time every call of
its trunk and of its output head; the rest of ``run_suite`` (reading rows, prompts, tokenizing, batching, decoding, scoring)
is what the harness and this project add. CPU seconds of the process, so that a busy machine does not blur the ratio.
Importing the harness is left out; it is paid once a process.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.measure.benchmarks import Subject
from tasks.measure.suite.run import run_suite
from tests.unit import tiny_models
from tests.unit.measure.suite import tiny
from tests.unit.results.sheets import evaluation_config

CONTEXT = 2048


class Clock:
    """Seconds spent inside some modules."""

    def __init__(self, *modules: torch.nn.Module) -> None:
        self.seconds, self.calls, self._start = 0.0, 0, 0.0
        for module in modules:
            module.register_forward_pre_hook(self._begin)
            module.register_forward_hook(self._end)

    def _begin(self, *_: object) -> None:
        self._start = time.process_time()

    def _end(self, *_: object) -> None:
        self.seconds += time.process_time() - self._start
        self.calls += 1


def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=["<pad>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    pieces.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>", eos_token="<eos>")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folder", type=Path, help="JSONL files of the suite; made-up rows when left out")
    options.add_argument("--limit", type=int, default=8, help="items a task")
    options.add_argument("--shots", choices=("few", "zero"), default="few")
    options.add_argument("--tasks", nargs="+", default=["instructgpt"])
    options.add_argument("--tokens-per-microbatch", type=int, default=16384)
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made_up:
        folder = given.folder or tiny.write_files(Path(made_up), 40)
        texts = [path.read_text(encoding="utf-8")[:200_000] for path in sorted(folder.glob("*.jsonl"))]
        words = tokenizer(texts)
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(words),
                hidden_size=192,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=CONTEXT,
                tie_word_embeddings=True,
                pad_token_id=0,
                eos_token_id=1,
            )
        ).eval()
        clock = Clock(model.base_model, model.get_output_embeddings())
        runtime = tiny_models.runtime(tokens_per_microbatch=given.tokens_per_microbatch, generation_batch=16)
        suite = {"tasks": given.tasks, "folder": str(folder), "shots": given.shots}
        config = evaluation_config("own_data", bootstrap_samples=2000, suite={**suite, "limit": given.limit})
        run_suite(
            Subject(model, words, runtime),
            config.model_copy(update={"suite": config.suite.model_copy(update={"limit": 1})}),
        )
        clock.seconds, clock.calls = 0.0, 0
        start = time.process_time()
        run_suite(Subject(model, words, runtime), config)
        total = time.process_time() - start
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"model {parameters:.1f} M parameters, {given.shots}-shot, {given.limit} items a task, {clock.calls} calls")
    print(f"total {total:.2f} s, forward passes {clock.seconds:.2f} s, added {100 * (total / clock.seconds - 1):.1f} %")


if __name__ == "__main__":
    main()
