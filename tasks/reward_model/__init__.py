"""A scalar head trained on rankings."""
