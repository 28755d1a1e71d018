"""Estimate what a sweep costs.

costs.py      parameters, multiply-accumulates, memory and disk of its networks
machine.py    slots, device and speed of this machine
timing.py     time networks in as many processes as trials run at a time
forecast.py   the time of a sweep, kept for the comparison at its end
gpu_share.py  how many trials train most on one GPU
"""
