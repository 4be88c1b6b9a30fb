"""Model folders from elsewhere, made artifacts, so that they are evaluated like our own."""
