"""Supervised fine-tuning: the baseline, and the start of PPO."""

from tasks.engine.declared import Stage

fine_tune = Stage("supervised fine-tuning", "tasks.sft.task:fine_tune", gpus=1, divided=True)
select_epoch = Stage("choice of the SFT epoch", "tasks.sft.task:select_epoch", gpus=1)
