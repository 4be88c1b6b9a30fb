"""One policy: its responses, scores, KL, benchmarks, perplexity and safety, as a sheet."""
