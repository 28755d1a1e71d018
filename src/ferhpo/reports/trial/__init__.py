"""Panels of a trial: curves, confusion matrix, misclassified images, class distribution, collapse."""
