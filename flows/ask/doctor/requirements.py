"""What a run cannot do without: store, device, runner, engine, models, data, judges."""

import importlib.util
from functools import partial
from pathlib import Path

from flows.config import RLHFConfig
from flows.evaluation_config import EvaluationConfig
from flows.lengths import misfits
from flows.process import environment
from flows.run.reproduce import looks_local
from tasks.chat.model import ChatModel, answer_cache
from tasks.compare.judges.asked import pair_judges
from tasks.comparisons.labelers.hired import check_labelers
from tasks.data_prep.enough import no_documents
from tasks.data_prep.sources.folder import benchmark_task, choose_files
from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import ConfigError, DataError, ModelError
from tasks.engine.findings import Finding, refuse
from tasks.engine.os_errors import probe
from tasks.language.loading import check_files
from tasks.language.reward_folder import check_reward_model, check_scores
from tasks.results.judges import JUDGES
from tasks.results.sheet import GOLD, INDEPENDENT, REWARD_MODEL
from tasks.revise.revise import KNOB, WITHOUT


def check_folders(config: RLHFConfig) -> None:
    """Store and home must be folders that can be written, and a shared store must answer."""
    config.tracking.open_store().reach()
    for folder in (config.tracking.folder, environment.HOME):
        probe(folder)


def check_device(device: str, processes: int = 1, knob: str = "runtime.device", otherwise: str = "runtime=cpu") -> None:
    """The device that ``knob`` asks for must be one that torch sees, with a GPU for every process that shares a stage."""
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        return
    if kind != "cuda" or (index and not index.isdigit()):
        raise ConfigError(f"{knob}: found {device!r}, expected cpu, cuda or cuda:N")
    import torch

    count = torch.cuda.device_count()
    if count <= int(index or 0):
        raise ConfigError(f"{knob}: {device} asked for, torch sees {count} GPUs; use {otherwise}")
    if processes > (1 if index else count):
        raise ConfigError(
            f"runtime.processes: {processes} asked for with runtime.device={device}, which has {1 if index else count} of the "
            f"{count} GPUs that torch sees, expected one for each process; lower runtime.processes, or use runtime.device=cuda"
        )


def check_devices(runtime: RuntimeConfig) -> None:
    """This machine must have what a run asks of it; the nodes of a Ray cluster are asked once it is reached."""
    if runtime.runner != "ray" or not runtime.ray_cluster:
        check_device(runtime.device, runtime.processes)
    elif runtime.device not in ("cpu", "cuda"):
        raise ConfigError(
            f"runtime.device: found {runtime.device!r} with the Ray cluster at {runtime.ray_cluster}, expected cpu or cuda: Ray "
            "decides which GPU it is"
        )


def check_engine(config: RLHFConfig) -> None:
    """vLLM samples on a GPU and is an extra."""
    if config.ppo.rollout_engine != "vllm":
        return
    if not config.runtime.device.startswith("cuda"):
        raise ConfigError(
            f"ppo.rollout_engine is vllm and runtime.device is {config.runtime.device}; use runtime=gpu or "
            "ppo.rollout_engine=own"
        )
    if config.runtime.processes > 1:
        raise ConfigError(
            f"ppo.rollout_engine is vllm and runtime.processes is {config.runtime.processes}, expected 1: vLLM samples in one "
            "process; use ppo.rollout_engine=own or runtime.processes=1"
        )
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("ppo.rollout_engine is vllm, which is not installed; run `pip install -e .[vllm]`")


def check_runner(runner: str) -> None:
    """Runners beyond the standard library's are extras."""
    packages = {"ray": "prefect_ray", "dask": "prefect_dask"}
    if runner in packages and importlib.util.find_spec(packages[runner]) is None:
        raise ConfigError(
            f"runtime.runner: {runner} needs the package {packages[runner]}, which is not installed; "
            f"run `pip install -c constraints.txt -e .[{runner}]` or choose processes"
        )


def inspect_models(config: RLHFConfig) -> list[Finding]:
    """The base model and the reward model's body must be models that this program trains and samples rightly."""
    named = {"model.name_or_path": config.model.name_or_path, "reward_model.body": config.reward_model.body}
    found: list[Finding] = []
    for key, name in named.items():
        if name is not None:
            from tasks.language.inspect import inspect_model

            if looks_local(name):
                check_folder(key, name)
            revision = config.model.revision if key == "model.name_or_path" else None
            found += inspect_model(key, name, config.model.context_tokens, revision, partial(_to_fit, config))
    return found


def _to_fit(config: RLHFConfig, context: int) -> str:
    others = misfits(config, context)
    return f"set model.context_tokens={context}" + (f", and then, because of {others}" if others else "")


def check_model_folder(key: str, name: str) -> None:
    """A Hugging Face folder with a model that this program reads rightly; ``key`` is where it was named.

    Raises:
        ModelError: everything that is wrong with it.
    """
    check_folder(key, name)
    from tasks.language.inspect import inspect_model

    refuse(inspect_model(key, name))


def check_folder(key: str, name: str) -> None:
    """A folder must exist where one is meant.

    Raises:
        ModelError: it does not.
    """
    if Path(name).expanduser().is_file():
        raise ModelError(f"{key}: {name} is a file; give the folder that it is in")
    if not Path(name).expanduser().is_dir():
        raise ModelError(f"{key}: folder {name} does not exist; give a Hugging Face model folder")


def check_data(config: RLHFConfig) -> None:
    """A data folder must exist, with documents where a stage needs them; rows are checked by data preparation."""
    data = config.data_prep
    if data.source == "hub" and config.documents_for and "documents" not in (data.hub or {}):
        raise no_documents(
            "data_prep.hub: found no dataset for documents", config.documents_for, "add data_prep.hub.documents"
        )
    if data.source != "folder":
        return
    root = Path(data.folder or "").expanduser()
    if not data.folder or not root.is_dir():
        raise DataError(
            f"data_prep.folder: found {data.folder!r}, expected a folder with data files; see docs/data.md on bringing your "
            "own data"
        )
    assert data.files is not None
    chosen = choose_files(root, data.files, [])
    for name in chosen["benchmarks"]:
        benchmark_task(name)
    if config.documents_for and not chosen["documents"]:
        patterns = ", ".join(data.files.documents) or "no pattern"
        raise no_documents(
            f"{data.folder}: found no file for documents", config.documents_for, f"add one matching {patterns}"
        )


def check_judges(config: EvaluationConfig) -> None:
    """A chat model must answer, a file of verdicts must read, a second reward model must be one."""
    for judge in pair_judges(config.judges, environment.HOME):
        judge.check()
    if config.judges.independent_reward_model is not None:
        check_reward_model(Path(config.judges.independent_reward_model))


def check_adapters(config: RLHFConfig) -> None:
    """peft is an extra, and every target must be a layer of the model at hand.

    Raises:
        ConfigError: it is not installed, or a target is none.
    """
    rivals = [rival.adapter for rival in config.preference_runs.values()]
    rivals += [config.rejection_sampling.adapter] if config.sampling_runs else []
    policies = [config.sft.adapter, config.ppo_init.adapter, config.ppo.adapter, *rivals]
    judges = [config.reward_model.adapter, config.ppo.adapter]
    asked = [adapter for adapter in (*policies, *judges) if adapter is not None]
    if not asked:
        return
    if config.runtime.shard != "none":
        from tasks.language.shards import NO_ADAPTERS

        raise ConfigError(NO_ADAPTERS)
    from flows.ask.arithmetic.shapes import shapes_of
    from tasks.language.adapters import check_targets, load_peft

    load_peft()
    if any(adapter.base == "4bit" for adapter in asked):
        check_four_bit(config)
    local = [name is None or looks_local(name) for name in (config.model.name_or_path, config.reward_model.body)]
    if all(local) and any(adapter.targets != "all-linear" for adapter in asked):
        shapes = shapes_of(config)
        for shape, adapters in ((shapes.policy, policies), (shapes.judge, judges)):
            for adapter in adapters:
                if adapter is not None:
                    check_targets(adapter, {layer.name for layer in shape.linear}, shape.origin)


def check_four_bit(config: RLHFConfig) -> None:
    """A base in 4 bits is for one CUDA device, and its package is an extra.

    Raises:
        ConfigError: another device, several processes, or no package.
    """
    from tasks.language.four_bit import load_bitsandbytes

    device, processes = config.runtime.device, config.runtime.processes
    if not device.startswith("cuda") or processes > 1:
        found = f"runtime.device is {device}" if processes == 1 else f"runtime.processes is {processes}"
        raise ConfigError(
            f"adapter.base is 4bit and {found}, expected one process on one CUDA device; use runtime=gpu and "
            "runtime.processes=1, or adapter.base=full"
        )
    load_bitsandbytes()


def check_dropout(config: RLHFConfig) -> None:
    """Residual dropout needs a family whose residual branches are known.

    Raises:
        ModelError: the base model's are not.
    """
    fine_tuned = {"sft": config.sft, "ppo_init": config.ppo_init}
    fine_tuned |= {"rejection_sampling": config.rejection_sampling} if config.sampling_runs else {}
    asked = [f"{name}.residual_dropout" for name, knobs in fine_tuned.items() if knobs.residual_dropout]
    name = config.model.name_or_path
    if not asked or name is None or not (Path(name).expanduser() / "config.json").is_file():
        return
    from flows.ask.arithmetic.networks import network_config, without_weights
    from tasks.language.families import residual_branches

    try:
        residual_branches(without_weights(network_config(config), name))
    except ModelError as error:
        raise ModelError(f"{' and '.join(asked)} above 0: {error}") from None


def check_rewards(config: RLHFConfig) -> None:
    """Functions must import, chat models answer, and folders contain a reward model with its tokenizer.

    Raises:
        PlumblineError: the first part that cannot be asked.
    """
    from tasks.rewards.chat import ChatReward
    from tasks.rewards.config import ChatPart, FunctionPart
    from tasks.rewards.function import load_function

    for part in config.ppo.rewards.parts:
        if isinstance(part, FunctionPart):
            load_function(part.function)
        elif isinstance(part, ChatPart):
            ChatReward(part, environment.HOME).model.check()
        elif part.folder is not None:
            key = f"ppo.rewards part {part.name}"
            check_folder(key, part.folder)
            check_files(Path(part.folder).expanduser())
            check_scores(Path(part.folder), key)


def check_opponents(config: RLHFConfig) -> None:
    """The fixed opponent must be a model, and the questions for the reward model must read.

    Raises:
        PlumblineError: one of them is not what it is given as.
    """
    from tasks.reward_model.question_files import read_questions

    if config.yardstick is not None:
        check_model_folder("yardstick", config.yardstick)
    if config.reward_questions is not None:
        read_questions(Path(config.reward_questions).expanduser())


def check_gate(config: RLHFConfig) -> None:
    """Whoever decides about promotion must be among the judges, or hours of training end in "not measured"."""
    gate, judges = config.evaluation.gate, config.evaluation.judges
    second = judges.independent_reward_model is not None or config.independent_reward_model != "none"
    there = {GOLD: config.data_prep.source == "sandbox", REWARD_MODEL: True, INDEPENDENT: second}
    there |= {judge.name: getattr(judges, judge.asked_by) is not None for judge in JUDGES.values() if judge.asked_by}
    asked = gate.min_win_rate is not None or gate.min_win_rate_low is not None
    if asked and not there.get(gate.judge, False):
        raise ConfigError(
            f"evaluation.gate.judge: found {gate.judge!r}, and the judges of this run are "
            f"{', '.join(name for name, here in there.items() if here)}; choose one of them, or set min_win_rate and "
            "min_win_rate_low to null"
        )


def check_hired(config: RLHFConfig) -> None:
    """Labelers and revisers from outside must be at hand."""
    if config.reads_comparisons:
        check_labelers(config.comparisons, config.tracking.folder, config.runtime)
    if config.revise.prompts:
        ChatModel(config.revise.chat, answer_cache(config.tracking.folder), KNOB, WITHOUT).check()


def check_measures(config: EvaluationConfig, context_tokens: int) -> None:
    """The evaluation's own files and toxicity scorer must be at hand; the shortest model reads ``context_tokens``."""
    from tasks.measure.few_shot import read_prefix
    from tasks.measure.refusals import read_refusal_prompts
    from tasks.measure.safety import check_toxicity

    if config.suite.tasks:
        from tasks.measure.suite.run import check_suite

        check_suite(config.suite, context_tokens)
    check_toxicity(config.toxicity)
    if config.few_shot.file is not None:
        read_prefix(config.few_shot.file)
    if config.refusal_prompts is not None:
        read_refusal_prompts(Path(config.refusal_prompts).expanduser())
