"""The gate: a declared budget that a policy keeps or breaks, decided from the comparison's figures and their intervals."""
