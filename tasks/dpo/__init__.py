"""Direct preference optimisation: a policy straight from rankings, without reward model or sampling."""

from tasks.engine.declared import Stage

train_dpo = Stage("DPO", "tasks.dpo.task:train_dpo", gpus=1, divided=True)
