"""Evaluate trained networks.

evaluate.py  the verb `evaluate`
load.py      load trained networks by name, or as the subject of a report
"""
