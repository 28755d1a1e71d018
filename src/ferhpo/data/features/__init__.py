"""Features of images.

hog.py     histograms of oriented gradients
cached.py  features of a data set, computed once
"""
