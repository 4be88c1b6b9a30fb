"""Demonstrations that a chat model makes of its own responses: it criticises and revises them by written principles."""
