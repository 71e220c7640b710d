"""Tuning: which kernel and schedule a machine computes each layer with fastest, measured there and kept in a file."""
