"""The starting points that `ferhpo new KIND NAME` copies into ferhpo.d/: one file per kind of own code.

The command renames Starter (a class) or starter (a function) to the name that the user gives.
"""
