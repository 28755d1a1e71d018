"""Statistics of predictions, without networks.

calibration.py  whether probabilities say how often a network is right
choice.py  the best of several trials, corrected for the choice
greedy.py  the members of an ensemble, and its score corrected for the choice
paired.py  networks on the same images: intervals, differences, exact tests
"""
