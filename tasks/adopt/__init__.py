"""Model folders from elsewhere, made artifacts, so that they are evaluated like our own."""

from tasks.engine.declared import Stage

adopt_model = Stage("adopted model", "tasks.adopt.task:adopt_model")
