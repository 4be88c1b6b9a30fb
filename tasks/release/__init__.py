"""The release: a policy that passed the gate, with a model card that says what it is, what it can do and where it came from."""

from tasks.engine.declared import Stage

release_policy = Stage("release", "tasks.release.task:release_policy")
