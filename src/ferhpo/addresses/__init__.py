"""Addresses of stores and clusters: their passwords (secrets.py), and whether the user named them (trust.py)."""
