"""Evaluate trained networks.

evaluate.py  the verb `evaluate`
load.py      trained networks by name
"""
