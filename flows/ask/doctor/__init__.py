"""What is checked before a run: a table of functions, each of which looks at one thing and returns what it finds."""
