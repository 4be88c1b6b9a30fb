"""The base model: trained from scratch, or adopted from a folder."""
