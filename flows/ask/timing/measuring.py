"""The model's own forward, backward and sampling on one small batch, measured.

Once for a machine, device, precision, number of threads, adapter and shape of the model, in about 10 seconds, and kept in the
home folder. The model is built with made-up weights; one that is too large for that is cut to fewer layers and scaled up.
"""

import json
import platform
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from flows.ask.doctor.machine import device_memory
from flows.ask.timing.rates import Rates, Trial, matrix_rate, seconds_of, update_rate
from tasks.engine.config import AdapterConfig, RuntimeConfig
from tasks.language.adapters import attach
from tasks.language.batches import TokenBatch, pad_batch
from tasks.language.generation import sample
from tasks.language.loading import ONE_AT_A_TIME
from tasks.language.logprobs import response_logprobs
from tasks.language.precision import autocast

FILE = "rates.json"
SECONDS = 2.5
"""What the longest measurement, a backward pass, may take; ours."""
MOST_PARAMETERS = 250_000_000
"""Above which layers are taken off before the model is built."""
BYTES = 16
"""Free memory a parameter that the measurement asks for: weights, gradients, and as much again."""
MOST_TOKENS = 1_024
STEPS = 3
"""Tokens that are sampled beyond the first."""


class MeasuredModel(NamedTuple):
    """What is measured."""

    network: PretrainedConfig
    parameters: int
    adapter: AdapterConfig | None
    """Of the run, if any stage trains one."""


def rates_here(learner: MeasuredModel, runtime: RuntimeConfig, batch: Trial, home: Path) -> Rates:
    """From the home folder, else measured and kept there."""
    path, machine = home / FILE, f"{platform.node()} {runtime.device} {runtime.precision} {runtime.threads} threads"
    how = f"{batch} {torch.__version__} {learner.adapter} {runtime.gradient_checkpointing}"
    key = sha256(f"{machine} {learner.network.to_json_string()} {how}".encode()).hexdigest()[:16]
    known = _known(path)
    if key not in known:
        known[key] = measure(learner, runtime, batch, machine).model_dump()
        home.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return Rates.model_validate(known[key])


def measure(learner: MeasuredModel, runtime: RuntimeConfig, batch: Trial, machine: str) -> Rates:
    """Run it all, with the threads of a stage."""
    before = torch.get_num_threads()
    torch.set_num_threads(runtime.threads)
    try:
        gflops = matrix_rate(runtime)
        model, size = _built(learner.network, learner.parameters, runtime.device)
        tokens = int(min(MOST_TOKENS, runtime.tokens_per_microbatch, max(64, SECONDS * gflops * 1e9 / (6 * size))))
        length = batch.prompt + batch.response
        count = max(1, tokens // length)
        few, texts = (_texts(batch, rows, runtime) for rows in (1, count))

        def read(given: TokenBatch) -> None:
            with torch.no_grad(), autocast(runtime):
                response_logprobs(model, given, 1.0)

        def train(given: TokenBatch) -> None:
            with autocast(runtime):
                loss = response_logprobs(model, given, 1.0).mean()
            loss.backward()  # type: ignore[no-untyped-call]

        def write(steps: int) -> Callable[[], None]:
            def run() -> None:
                draws = torch.Generator(device=runtime.device).manual_seed(0)
                with autocast(runtime):
                    sample(
                        model,
                        [[1]] * batch.rows,
                        max_new_tokens=steps,
                        temperature=1.0,
                        generator=draws,
                        eos_id=-1,
                        pad_id=0,
                        batch_size=batch.rows,
                        with_statistics=False,
                    )

            return run

        def learn_and_write() -> tuple[float, float]:
            train(few)  # memory for gradients is taken, kernels are chosen
            learnt = seconds_of(lambda: train(texts), runtime)
            write(1)()
            written = seconds_of(write(1 + STEPS), runtime) - seconds_of(write(1), runtime)
            return learnt / (count * length), max(written, 1e-6) / (STEPS * batch.rows)

        read(few)
        read_seconds = seconds_of(lambda: read(texts), runtime)
        whole = adapted = learn_and_write()
        if learner.adapter is not None:
            model.zero_grad(set_to_none=True)
            attach(
                model, learner.adapter, torch.Generator(device=runtime.device).manual_seed(0), runtime.frozen_precision
            )
            adapted = learn_and_write()
        return Rates(
            machine=machine,
            measured=datetime.now().isoformat(timespec="minutes"),
            gflops=round(gflops, 1),
            parameters=size,
            tokens=count * length,
            read=read_seconds / (count * length),
            train=whole[0],
            rows=batch.rows,
            sample=whole[1],
            adapted_train=adapted[0],
            adapted_sample=adapted[1],
            update=update_rate(runtime),
        )
    finally:
        torch.set_num_threads(before)


def _texts(batch: Trial, rows: int, runtime: RuntimeConfig) -> TokenBatch:
    return pad_batch([[1] * batch.prompt] * rows, [[1] * batch.response] * rows, 0).to(runtime.device)


def _built(network: PretrainedConfig, parameters: int, device: str) -> tuple[PreTrainedModel, int]:
    """The model, or one of fewer layers; weights are made up, since no time depends on them."""
    most = min(MOST_PARAMETERS, device_memory(device)[1] // BYTES)
    if parameters > most:
        layers = network.get_text_config().num_hidden_layers
        network = type(network).from_dict(network.to_dict())
        text = network.get_text_config()
        text.num_hidden_layers = max(1, int(layers * most / parameters))
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[: text.num_hidden_layers]
    with ONE_AT_A_TIME, torch.device("meta"):
        model = AutoModelForCausalLM.from_config(network, trust_remote_code=False)
    model = model.float().to_empty(device=device)
    model.tie_weights()
    with torch.no_grad():
        for weight in [*model.parameters(), *model.buffers()]:
            weight.fill_(0.01) if weight.is_floating_point() else weight.zero_()
    return model.eval(), sum(weight.numel() for weight in model.parameters())


def _known(path: Path) -> dict[str, dict[str, object]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
