"""One trial, without Ray.

run.py               build the network, train it, return the outcome
cross_validation.py  the same for each fold
load_data.py         load the data set of a configuration
"""
