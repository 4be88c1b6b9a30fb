"""Task files of the suite ``instructgpt``, one YAML file a benchmark (InstructGPT appendix D.2)."""
