"""The release: a policy that passed the gate, with a model card that says what it is, what it can do and where it came from."""
