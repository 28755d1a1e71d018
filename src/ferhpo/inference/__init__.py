"""Exported models, which predict without ferhpo.

export.py        a checkpoint to a model folder
served_model.py  the MLflow model
"""
