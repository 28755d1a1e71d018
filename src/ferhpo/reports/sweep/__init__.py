"""Panels of a sweep, one per file; axes.py maps hyperparameters to the axes of figures."""
