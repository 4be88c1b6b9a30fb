"""One run: its stages, what happens to its policy, and what is printed at its end."""
