"""PPO-ptx."""
