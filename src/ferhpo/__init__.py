"""Hyperparameter sweeps with experiment tracking for facial emotion recognition."""
