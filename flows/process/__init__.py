"""Processes: the environment, task runners, the local Prefect server, what a killed run leaves."""
