"""The faults that the doctor must find, one a row: how it is planted, the words its sentence must have, who reported it."""

from types import SimpleNamespace
from typing import Any, NamedTuple

from flows.ask.arithmetic.memory import GIB
from tests.unit.ask import faulty as f
from tests.unit.language.chat_templates import CHATML
from tests.unit.tiny_folder import THINGS, text_of

OWN_WORDS = "{prompt} answer :"
ANSWER = "it is about the thing and nothing else ."
LONG = " ".join(f"{THINGS[i % 10]} {i}" for i in range(40))


class Fault(NamedTuple):
    """One row."""

    name: str
    plant: f.Plant
    words: tuple[str, ...]
    """Where, what was found, and what to do: each must be in one and the same sentence."""
    severity: str = "error"
    reported: str = ""
    """Where somebody met it."""


def same_ranks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "completions": [row["chosen"], row["rejected"]], "ranks": [1, 1]} for row in rows]


def answered(**changes: Any) -> list[dict[str, Any]]:
    return [row | {key: change(row) for key, change in changes.items()} for row in f.demonstrations()]


FAULTS = [
    # The model's folder.
    Fault("no_config", f.without("config.json"), ("found no config.json", "check the path")),
    Fault(
        "no_tokenizer", f.without("tokenizer.json", "tokenizer_config.json"), ("found no tokenizer", "save_pretrained")
    ),
    Fault(
        "pickled_weights",
        f.both(f.without("model.safetensors"), f.file("pytorch_model.bin", "")),
        ("only pickled weights (pytorch_model.bin)", "can run code"),
    ),
    Fault("adapter", f.file("adapter_config.json", "{}"), ("found an adapter", "merge_and_unload()")),
    Fault(
        "lfs_pointer",
        f.file("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        ("Git LFS pointer in the place of model.safetensors", "git lfs pull"),
        reported="huggingface/transformers#27923, deepseek-ai/DeepSeek-V3#557",
    ),
    Fault(
        "missing_shard",
        f.file(
            "model.safetensors.index.json", '{"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}'
        ),
        ("found 1 of 2 files of weights", "copy model-00002.safetensors too"),
    ),
    Fault("cut_short", f.halved, ("model.safetensors, which cannot be read", "copy it again")),
    Fault(
        "not_finite",
        f.weights(lambda found: found["model.norm.weight"].fill_(float("nan"))),
        ("not finite in model.norm.weight", "the file is damaged"),
    ),
    Fault("weight_missing", f.weights(lambda found: found.pop("model.norm.weight")), ("lack", "model.norm.weight")),
    Fault(
        "quantized", f.config(quantization_config={"quant_method": "awq"}), ("quantized (awq)", "fp32, bf16 or fp16")
    ),
    Fault(
        "own_code", f.config(model_type="own", auto_map={"AutoConfig": "code.Config"}), ("code of its own", "never run")
    ),
    Fault(
        "ids_without_rows",
        f.tokenizer(lambda found: found.add_tokens(["plumbline"])),
        ("embedding has", "resize_token_embeddings"),
        reported="OpenRLHF/OpenRLHF#300",
    ),
    Fault(
        "no_eos", f.tokenizer(lambda found: setattr(found, "eos_token", None)), ("found no EOS token", "set eos_token")
    ),
    Fault(
        "context_too_long",
        f.config(max_position_embeddings=48),
        ("reads 48 tokens", "set model.context_tokens=48"),
        reported="huggingface/trl#1867, huggingface/transformers#530",
    ),
    Fault(
        "rope_follows_the_batch",
        f.config(
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 8,
                "long_factor": [1.0] * 8,
                "original_max_position_embeddings": 16,
            }
        ),
        ("changes for every sequence of a batch", "context_tokens=16"),
        reported="ggml-org/llama.cpp#24875",
    ),
    Fault(
        "unknown_branches",
        f.bloom,
        ("sft.residual_dropout above 0", "no module named self_attn", "set residual_dropout=0 for this family"),
    ),
    Fault("state_space", f.mamba, ("decoded token by token", "another family")),
    Fault(
        "another_end",
        f.config(eos_token_id=0),
        ("responses end with '<|im_end|>'", "generation_config.json"),
        "warning",
        "meta-llama/llama-cookbook#640, vllm-project/vllm#4180",
    ),
    Fault(
        "untrained_tokens",
        f.weights(lambda found: found["model.embed_tokens.weight"][:3].zero_()),
        ("embeddings of", "<|im_start|>", "chat model of this base"),
        "warning",
        "unslothai/unsloth#1024, unslothai/unsloth#1258",
    ),
    # The chat layout.
    Fault(
        "unstable_prefix",
        f.template("{% if add_generation_prompt %}a{% else %}b{% endif %}" + CHATML),
        ("something else once the answer is there", "data_prep.prompt_layout"),
        reported="huggingface/trl#6124, PrimeIntellect-ai/prime-rl#1334, verl-project/verl#6854",
    ),
    Fault(
        "end_that_is_no_token",
        f.template(CHATML.replace("'<|im_end|>'", "' END'")),
        ("ends an answer with", "one token that ends a turn"),
    ),
    Fault(
        "answer_left_out",
        f.template(CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'assistant' %}")),
        ("leaves out what the assistant says",),
    ),
    Fault("template_that_fails", f.template("{% for m in %}"), ("it fails (TemplateSyntaxError",)),
    Fault(
        "two_start_tokens",
        f.template("{{ bos_token }}{{ bos_token }}" + CHATML, bos_token="<|endoftext|>"),
        ("two start tokens",),
        "warning",
        "deepseek-ai/DeepSeek-R1#151, OpenRLHF/OpenRLHF#393, NVIDIA-NeMo/RL#855",
    ),
    Fault(
        "markup_in_pieces",
        f.template(CHATML.replace("<|im_start|>", "<|start_header|>")),
        ("<|start_header|> in every prompt", "one token of its own"),
        "warning",
    ),
    Fault(
        "todays_date",
        f.template("{{ 'Today Date: ' + strftime_now('%d %b %Y') }}" + CHATML),
        ("today's date in every prompt",),
        "warning",
        "sgl-project/sglang#3296",
    ),
    Fault(
        "template_unused",
        f.given("data_prep.prompt_layout='Human: {prompt}'"),
        ("the tokenizer has a chat template", "data_prep.prompt_layout=chat"),
        "warning",
    ),
    Fault(
        "no_template",
        f.both(f.template(None), f.given("data_prep.prompt_layout=chat")),
        ("without a chat template", "give a model with a chat template"),
    ),
    Fault(
        "escape_in_layout",
        f.given("data_prep.prompt_layout='{prompt}\\nA:'"),
        ("backslash", "write the layout in a YAML file"),
    ),
    # The data.
    Fault(
        "no_folder",
        f.given("data_prep.folder=/no/such/folder"),
        ("data_prep.folder", "expected a folder with data files"),
    ),
    Fault(
        "wrong_columns",
        f.data(demonstrations=[{"question": text_of(i), "reply": "b"} for i in range(30)]),
        ("demonstrations.jsonl:1", "question"),
    ),
    Fault("broken_line", f.data(rl_prompts=['{"prompt": "a"', *f.prompts()]), ("rl_prompts.jsonl:1",)),
    Fault(
        "half_a_surrogate",
        f.data(demonstrations=['{"prompt": "a \\ud83d", "response": "b"}', *f.demonstrations()]),
        ("demonstrations.jsonl:1", "half of a surrogate pair"),
        reported="daaain/claude-code-log#139",
    ),
    Fault("nobody_asks", f.data(rl_prompts=[{"prompt": 7}, *f.prompts()]), ("rl_prompts.jsonl:1", "'prompt' is")),
    Fault(
        "unknown_role",
        f.data(demonstrations=[{"messages": [{"role": "wizard", "content": "a"}]}, *f.demonstrations()]),
        ("demonstrations.jsonl:1", "wizard"),
    ),
    Fault(
        "misspelt_file",
        f.data(demonstration=f.demonstrations(range(105, 120))),
        ("demonstration.jsonl", "no pattern of data_prep.files", "did you mean demonstrations"),
        "warning",
    ),
    Fault(
        "file_in_capitals",
        lambda at: f.write(at.data / "Demonstrations.JSONL", []),
        ("Demonstrations.JSONL", "no pattern of data_prep.files", "did you mean demonstrations"),
        "warning",
    ),
    Fault("empty_file", f.data(comparisons_more=[]), ("comparisons_more.jsonl", "without rows"), "warning"),
    Fault(
        "missing_role", f.data(comparisons=None), ("found no file for comparisons", "expected one matching comparisons")
    ),
    Fault(
        "no_documents",
        f.given("ppo.gamma=1"),
        ("found no file for documents", "ppo.gamma is above 0"),
    ),
    Fault(
        "long_prompts",
        f.data(rl_prompts=[*f.prompts(range(20)), *({"prompt": f"{i} {LONG}"} for i in range(15))]),
        ("rl_prompts", "long_prompt", "data_prep.prompt_tokens"),
        "warning",
        "verl-project/verl#502, rllm-org/rllm#275",
    ),
    Fault(
        "long_responses",
        f.data(
            demonstrations=[
                *f.demonstrations(range(20)),
                *({"prompt": text_of(i), "response": LONG} for i in range(20, 40)),
            ]
        ),
        ("demonstrations", "long_response", "data_prep.response_tokens"),
        "warning",
    ),
    Fault(
        "nothing_fits",
        f.data(demonstrations=[{"prompt": text_of(i), "response": LONG} for i in range(30)]),
        ("found 0 rows of demonstrations", "long_response"),
    ),
    Fault(
        "spelled_special_tokens",
        f.data(demonstrations=answered(response=lambda row: f"<|im_start|> {row['response']}")),
        ("special_token", "take chat markup"),
        reported="OpenRLHF/OpenRLHF#909, huggingface/trl#2164, huggingface/trl#1858",
    ),
    Fault(
        "duplicates",
        f.data(demonstrations=[*f.demonstrations(range(20)), *f.demonstrations(range(20))]),
        ("demonstrations", "rule duplicate", "remove the repetitions"),
        "warning",
    ),
    Fault(
        "test_prompts_in_training",
        f.data(
            test_prompts=[
                {"prompt": row["prompt"], "owner_id": f"t{i}"} for i, row in enumerate(f.demonstrations(range(30)))
            ]
        ),
        ("demonstrations", "in_held_out_split"),
        "warning",
    ),
    Fault(
        "test_asks_the_same",
        f.data(test_prompts=[{"prompt": f"please now : {text_of(i)}", "owner_id": f"t{i}"} for i in range(30)]),
        ("repeat a training prompt behind another opening", "one owner_id"),
        "warning",
    ),
    Fault(
        "benchmark_in_training",
        f.data(benchmarks__piqa=[{"query": text_of(i), "choices": ["yes", "no"], "gold": 0} for i in range(40)]),
        ("benchmark piqa", "questions inside training texts"),
        "warning",
    ),
    Fault(
        "personal_data_dropped",
        f.data(
            rl_prompts=[
                *f.prompts(),
                *({"prompt": f"{row['prompt']} ann@example.org"} for row in f.prompts(range(60, 75))),
            ]
        ),
        ("personal data are dropped", "email"),
        "notice",
    ),
    Fault(
        "personal_data_kept",
        f.both(
            f.data(demonstrations=answered(response=lambda row: f"{row['response']} ann@example.org")),
            f.given("data_prep.drop_pii=false"),
        ),
        ("data_prep.drop_pii", "email"),
        "warning",
    ),
    Fault(
        "conversations_without_answer",
        f.data(
            demonstrations=[
                *f.demonstrations(range(20)),
                *({"messages": [{"role": "user", "content": text_of(i)}]} for i in range(20, 40)),
            ]
        ),
        ("demonstrations", "no_answer"),
        "warning",
    ),
    Fault(
        "chosen_is_rejected",
        f.data(
            comparisons=[
                *f.pairs(range(20)),
                *({"prompt": text_of(i), "chosen": "a", "rejected": "a"} for i in range(20, 40)),
            ]
        ),
        ("comparisons", "same_response"),
        "warning",
        "camel-ai/owl#592",
    ),
    Fault(
        "ties_only",
        f.data(comparisons=same_ranks(f.pairs())),
        ("orders two different responses", "better and a worse"),
        reported="camel-ai/owl#592, gradients-ai/G.O.D#1344",
    ),
    # Labels and texts.
    Fault(
        "mostly_ties",
        f.data(comparisons=[*f.pairs(range(60, 80)), *same_ranks(f.pairs(range(80, 120)))]),
        ("ties among", "rank them finer"),
        "warning",
    ),
    Fault(
        "longer_wins",
        f.data(comparisons=f.pairs(range(61, 151, 2))),
        ("the longer response winning", "length-controlled"),
        "warning",
        "eric-mitchell/direct-preference-optimization#35, huggingface/trl#2003",
    ),
    Fault(
        "ranked_both_ways",
        f.data(
            comparisons=[
                *f.pairs(range(60, 100)),
                *({**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in f.pairs(range(60, 90))),
            ]
        ),
        ("pairs ranked both ways", "who disagrees"),
        "warning",
    ),
    Fault(
        "labelers_who_rank_the_other_way",
        f.data(
            comparisons=[
                *({**row, "labeler": "kim"} for row in f.pairs(range(60, 100))),
                *(
                    {**row, "chosen": row["rejected"], "rejected": row["chosen"], "annotator": "lee"}
                    for row in f.pairs(range(60, 100))
                ),
            ]
        ),
        ("pairs that several labelers ranked", "ranked both ways", "look at who disagrees"),
        "warning",
    ),
    Fault(
        "few_pairs", f.data(comparisons=f.pairs(range(60, 72))), ("ordered pairs to train on", "rank more"), "warning"
    ),
    Fault(
        "prompt_in_response",
        f.data(demonstrations=answered(response=lambda row: f"{row['prompt']} ok .")),
        ("begin with their own prompt", "cut the prompt off"),
        "warning",
        "OpenRLHF/OpenRLHF#308",
    ),
    Fault(
        "next_turn_in_response",
        f.data(demonstrations=answered(response=lambda row: f"{row['response'][:12]}\n\nHuman: why ?")),
        ("go on with a turn of the user", "give the rows as messages"),
        "warning",
    ),
    Fault(
        "one_answer_for_all",
        f.data(demonstrations=answered(response=lambda row: ANSWER)),
        ("one and the same response", "keep a few"),
        "warning",
    ),
    Fault(
        "damaged_letters",
        f.data(demonstrations=answered(response=lambda row: f"caf\u00c3\u00a9 {row['response']}")),
        ("damaged letters", "UTF-8"),
        "warning",
    ),
    Fault(
        "two_layouts",
        f.data(comparisons=[row | {"prompt": f"{row['prompt']}\nAssistant:"} for row in f.pairs()]),
        ("prompts that end with 'Assistant:'", "data_prep.prompt_layout"),
        "warning",
    ),
    Fault(
        "other_prompts_than_ranked",
        f.data(rl_prompts=[{"prompt": f"{VERB} {i} ?"} for i, VERB in enumerate(f.VERBS * 6)]),
        ("prompts of", "rank responses to such prompts too"),
        "warning",
    ),
    # Numbers that do not belong together.
    Fault(
        "minibatch_does_not_divide",
        f.given("ppo.minibatch_size=7"),
        ("minibatch_size (7) must divide",),
        reported="verl-project/verl#559, huggingface/trl#553",
    ),
    Fault("group_of_one", f.given("ppo.advantage_estimator=group_normalised"), ("responses_per_prompt",)),
    Fault(
        "too_long_for_the_context",
        f.given("ppo.response_tokens=80"),
        ("ppo: prompt_tokens (64) + response_tokens (80)", "set ppo"),
    ),
    Fault(
        "adaptive_beta_turns_negative",
        f.given("ppo.kl_controller=adaptive", "ppo.kl_horizon=2"),
        ("kl_horizon",),
        reported="OpenRLHF/OpenRLHF#1289, radixark/miles#3222",
    ),
    Fault(
        "one_step_an_epoch", f.given("sft.batch_size=512"), ("sft.batch_size", "one optimizer step an epoch"), "warning"
    ),
    Fault(
        "prompts_asked_for_ever",
        f.given("ppo.episodes=256000"),
        ("ppo.episodes", "each asked", "; set ppo.episodes=", "or add prompts"),
        "warning",
    ),
    Fault(
        "average_of_the_start",
        f.given("ppo.ema_decay=0.999"),
        ("ppo.ema_decay", "of the result is PPO's start"),
        "warning",
    ),
    Fault("warmup_to_the_end", f.given("ppo.warmup_iterations=16"), ("ppo.warmup_iterations", "16 of 16"), "warning"),
    Fault(
        "brake_that_never_holds",
        f.given("independent_reward_model=other_seed", "ppo.brake=stop", "ppo.sentinel.window=9"),
        ("ppo.brake", "stop, and 16 scorings", "so 18 scorings", "no fall is seen"),
        "warning",
    ),
    Fault("no_penalty", f.given("ppo.beta=0"), ("ppo.beta", "nothing ties the policy"), "warning"),
    Fault(
        "rate_of_another_age",
        f.given("sft.adam.learning_rate=0.1"),
        ("sft.adam.learning_rate", "check the exponent"),
        "warning",
    ),
    # The machine and what it talks to.
    Fault("no_gpu", f.given("runtime.device=cuda:99"), ("cuda:99 asked for", "runtime=cpu")),
    Fault(
        "bf16_in_name_only",
        f.both(f.given("runtime.precision=bf16"), f.patched("flows.ask.doctor.machine.bf16_units", lambda: None)),
        ("runtime.precision", "set runtime.precision=fp32"),
        "warning",
    ),
    Fault(
        "slow_allocator",
        f.both(
            f.patched("flows.ask.doctor.machine.preloaded", lambda: None),
            f.patched("flows.ask.doctor.machine.LARGE", 0),
        ),
        ("no tcmalloc", "apt install libtcmalloc-minimal4"),
        "notice",
    ),
    Fault(
        "more_threads_than_cores",
        f.given("runtime.threads=512"),
        ("512 threads in each of 1 workers", "2 cores", "set runtime.threads=2 runtime.max_workers=1"),
        "warning",
    ),
    Fault(
        "more_ranks_than_cores",
        f.given("runtime.processes=3", "runtime.threads=1"),
        (
            "1 threads in each of 3 processes of 1 workers",
            "set runtime.threads=1 runtime.processes=2 runtime.max_workers=1",
        ),
        "warning",
    ),
    Fault(
        "too_little_memory",
        f.patched("flows.ask.doctor.machine.device_memory", lambda device: (GIB // 4, GIB // 8)),
        ("GiB", "all the time", "take a smaller model"),
    ),
    Fault(
        "too_little_disk",
        f.patched("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1_000_000})()),
        ("GiB free", "flows.store gc"),
    ),
    Fault(
        "network_file_system",
        f.patched("psutil.disk_partitions", lambda all: [SimpleNamespace(mountpoint="/", fstype="nfs4")]),
        ("network file system (nfs4)", "SQLite's locks"),
        "warning",
        "mlflow/mlflow#5917, facebookresearch/DrQA#69",
    ),
    Fault(
        "other_versions",
        f.patched("flows.ask.doctor.versions.required", lambda: ["torch>=900", "pydantic>=2"]),
        ("package torch", "expected >=900", "pip install"),
    ),
    Fault("store_is_a_file", f.file_for_store, ("a file stands where a folder is needed", "tracking.root")),
    Fault(
        "no_prefect",
        f.environment("PREFECT_API_URL", "http://127.0.0.1:9/api"),
        ("PREFECT_API_URL", "unset the variable"),
    ),
    Fault(
        "no_mlflow",
        f.given("tracking.mlflow_uri=http://127.0.0.1:9"),
        ("tracking.mlflow_uri", "no answer", "null for a database"),
        reported="radixark/miles#2571, Lightning-AI/pytorch-lightning#12833",
    ),
    Fault(
        "runner_not_installed",
        f.both(f.given("runtime.runner=dask"), f.patched("importlib.util.find_spec", lambda name: None)),
        ("runtime.runner: dask needs", "choose processes"),
    ),
    Fault(
        "engine_without_gpu",
        f.given("ppo.rollout_engine=vllm"),
        ("ppo.rollout_engine is vllm", "ppo.rollout_engine=own"),
    ),
    Fault(
        "shards_of_adapters",
        f.given(
            "sft.adapter={rank: 8, alpha: 16, targets: all-linear, base: full, dropout: 0.0, learning_rate_factor: 10.0}",
            "runtime.processes=2",
            "runtime.shard=full",
        ),
        ("runtime.shard is full", "adapter=none"),
    ),
    Fault(
        "second_judge_that_is_none",
        f.given("evaluation.judges.independent_reward_model=/no/such/model"),
        ("/no/such/model has no config.json", "reward model that this program trained"),
    ),
    Fault(
        "judge_that_does_not_judge",
        f.given("evaluation.gate.judge=gold", "evaluation.gate.min_win_rate=0.5"),
        ("evaluation.gate.judge", "choose one of them"),
    ),
    Fault(
        "no_word_list",
        f.given("evaluation.toxicity.scorer=word_list", "evaluation.toxicity.path=/no/such/list"),
        ("cannot read the word list",),
    ),
]
