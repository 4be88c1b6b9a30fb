"""The gate: a declared budget that a policy keeps or breaks, decided from the comparison's figures and their intervals."""

from tasks.engine.declared import Stage

check_budget = Stage("gate", "tasks.gate.task:check_budget")
