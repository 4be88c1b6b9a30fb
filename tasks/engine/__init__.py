"""What runs a stage: configuration, artifacts, fingerprints, checkpoints, stopping, tracking, errors."""
