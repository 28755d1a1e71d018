"""Models that answer without ferhpo.

export.py        a checkpoint to a model folder
bundle.py        modules of ferhpo as one source file
served_model.py  what MLflow runs
"""
