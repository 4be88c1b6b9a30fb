"""In what order: the flows and their command lines."""
