"""A policy behind the protocol of OpenAI's chat completions, for whatever asks a chat model."""
