"""Exported models, which predict without ferhpo.

export.py        a checkpoint to a model folder
served_model.py  the MLflow model
images.py        images of any size and color, arrays or files, to pixels
probabilities.py predictions for such images
"""
