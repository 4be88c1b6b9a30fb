"""One policy: its responses, scores, KL, benchmarks, perplexity and safety, as a sheet."""

from tasks.engine.declared import Stage

evaluate_policy = Stage("evaluation of a policy", "tasks.measure.task:evaluate_policy", gpus=1, divided=True)
