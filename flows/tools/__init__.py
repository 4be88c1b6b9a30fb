"""What the store and MLflow know of earlier runs."""
