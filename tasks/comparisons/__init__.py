"""K responses per prompt, ranked by labelers."""
