"""Settings that hold for every test."""

import os

# Several test processes share few cores; threads that spin for each other make small models many times slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
