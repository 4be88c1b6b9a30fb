"""Rejection sampling: several responses to each prompt, of which the one that the reward model likes best is learned from."""
