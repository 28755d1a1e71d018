"""Panels of a trial: curves, confusion matrix, misclassified images, class counts, collapse."""
