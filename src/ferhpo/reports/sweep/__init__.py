"""Panels of a sweep, one a file; axes.py turns hyperparameters into figure axes."""
