"""What travels between stages: prompts, demonstrations, rankings, and the readers of the data artifacts."""
