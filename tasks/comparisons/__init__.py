"""K responses per prompt, ranked by labelers."""

from tasks.engine.declared import Stage

sample_responses = Stage("responses to compare", "tasks.comparisons.task:sample_responses", gpus=1)
collect_comparisons = Stage("comparisons", "tasks.comparisons.task:collect_comparisons", gpus=1)
