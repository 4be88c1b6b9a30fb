"""What a response is worth: reward models, functions of one's own and chat models, combined by a declared rule."""
