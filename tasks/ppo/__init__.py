"""PPO and PPO-ptx: optimise the policy against the reward model, held near the reference."""
