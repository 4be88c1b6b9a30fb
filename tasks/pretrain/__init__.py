"""The base model: trained from scratch, or adopted from a folder."""

from tasks.engine.declared import Stage

train_base = Stage("base model", "tasks.pretrain.task:train_base", cpus=2, gpus=1, divided=True)
