"""What touches a network: token layouts, models and their families, sampling, log-probabilities, optimisation."""
