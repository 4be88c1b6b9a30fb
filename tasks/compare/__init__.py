"""All sheets of a run side by side: win rates, alignment tax, plots, the report page."""

from tasks.engine.declared import Stage

compare_policies = Stage("comparison of all policies", "tasks.compare.task:compare_policies")
compare_rounds = Stage("rounds", "tasks.compare.task:compare_rounds")
