"""Where: deployments of the flows."""
