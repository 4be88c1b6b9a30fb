"""PPO and PPO-ptx: optimise the policy against the reward model, held near the reference."""

from tasks.engine.declared import Stage

train_ppo = Stage("PPO", "tasks.ppo.task:train_ppo", cpus=2, gpus=1, divided=True)
