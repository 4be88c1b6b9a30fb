"""Tests of tasks/ppo."""
