"""A chat model behind an OpenAI-compatible address: how it is asked, and its answers kept; shared by judges and rewards."""
