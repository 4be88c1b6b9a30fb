"""The PPO trainer of TRL 1.12.0 on the work of ``workload``, as its user gets it. Prints one JSON object.

Runs in an environment of its own, which ``bench`` makes: it imports torch, transformers, datasets, accelerate and trl.
Precision ``onednn`` allows oneDNN for fp32 products, which is faster on some processors; ``bf16`` is autocast as
``accelerate launch --mixed_precision bf16`` sets it (TRL's own ``bf16=True`` changes nothing in this trainer).
"""

import json
import os
import sys
import tempfile
import time
import warnings
from typing import Any

from tests.benchmarks import workload
from tests.benchmarks.workload import Work


def measure(work: Work) -> dict[str, Any]:
    """Run one iteration to warm up, then the measured ones."""
    import torch
    import trl
    import trl.experimental.ppo.ppo_trainer as module
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    if work.precision == "onednn":
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    policy, reference, reward, value = workload.build_models(work)
    data = Dataset.from_dict({"input_ids": workload.prompts(work)})
    arguments = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        num_sample_generations=0,
        use_cpu=work.device == "cpu",
        bf16=False,
        seed=0,
        # with accumulation TRL would step once per accumulated group, so a step per minibatch needs 1 here
        per_device_train_batch_size=work.batch,
        gradient_accumulation_steps=1,
        num_mini_batches=work.batch // work.minibatch,
        local_rollout_forward_batch_size=work.batch,
        num_ppo_epochs=1,
        total_episodes=work.batch * (work.iterations + 1),
        response_length=work.response,
        temperature=1.0,
        kl_coef=0.05,
        learning_rate=1e-6,
        stop_token="eos" if work.lengths == "varlen" else None,
    )
    mark: dict[str, Any] = {}
    rows: list[dict[str, float]] = []
    generate, forward = module.batch_generation, module.forward

    def timed_generation(*args: Any, **kwargs: Any) -> Any:
        mark.clear()
        mark["start"], mark["wall"] = time.process_time(), time.perf_counter()
        result = generate(*args, **kwargs)
        mark["generated"], mark["ids"] = time.process_time(), result[0]
        return result

    def watched_forward(model: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, module.PolicyAndValueWrapper):
            mark.setdefault("update", time.process_time())
        return forward(model, *args, **kwargs)

    module.batch_generation, module.forward = timed_generation, watched_forward

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            now, wall = time.process_time(), time.perf_counter()
            rows.append(
                {
                    "generation": mark["generated"] - mark["start"],
                    "scoring": mark["update"] - mark["generated"],
                    "update": now - mark["update"],
                    "total": now - mark["start"],
                    "wall": wall - mark["wall"],
                    "response_tokens": float((mark["ids"][:, -work.response :] != workload.PAD).sum()),
                }
            )

    trainer = PPOTrainer(
        args=arguments,
        processing_class=workload.tokenizer(work),
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=data,
        eval_dataset=data.select(range(work.batch)),
        callbacks=[Clock()],
    )
    base = workload.memory_mb("VmRSS")
    trainer.train()
    count = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return {"side": f"trl {trl.__version__}"} | workload.summary(work, rows, base, count)


if __name__ == "__main__":
    asked = workload.parse(sys.argv[1:])
    os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if asked.precision == "bf16":
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    warnings.filterwarnings("ignore")
    kept = os.dup(1)
    os.dup2(2, 1)  # TRL prints, and standard output is for the result
    import torch

    torch.set_num_threads(1)
    os.write(kept, (json.dumps(measure(asked)) + "\n").encode())
