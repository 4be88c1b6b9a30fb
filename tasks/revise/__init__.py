"""Demonstrations that a chat model makes of its own responses: it criticises and revises them by written principles."""

from tasks.engine.declared import Stage

revise_demonstrations = Stage("critique and revision", "tasks.revise.task:revise_demonstrations")
