"""Features of images.

hog.py     histograms of oriented gradients
cached.py  the features of a data set, computed once and cached
"""
