"""From a float model and samples to ranges, scales and zero points."""
