"""Rejection sampling: several responses to each prompt, of which the one that the reward model likes best is learned from."""

from tasks.engine.declared import Stage

draw_samples = Stage("rejection sampling", "tasks.rejection_sampling.task:draw_samples", gpus=1)
