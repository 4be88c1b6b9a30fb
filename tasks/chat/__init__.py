"""A chat model behind an OpenAI-compatible endpoint: asked side by side, with patience, its answers kept on disk."""
