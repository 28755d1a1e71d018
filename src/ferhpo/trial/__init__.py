"""One trial, without Ray.

run.py               build the network, train it, say how it ended
cross_validation.py  the same over folds
load_data.py         the data set of a configuration
"""
