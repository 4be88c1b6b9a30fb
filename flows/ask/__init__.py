"""Questions that train nothing: --explain, --dry-run, and the checks before a run."""
