"""Supervised fine-tuning: the baseline, and the start of PPO."""
