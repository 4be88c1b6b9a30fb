"""Benchmarks through lm-evaluation-harness, on the model object in memory.

The tasks of the suite ``instructgpt`` are YAML files in ``instructgpt/``; they read JSONL files from a folder and need no
network. Any other task name of the harness works where its data can be fetched. The harness belongs to the extra
``eval`` and is imported only by ``language_model.py`` and ``run.py``.
"""
