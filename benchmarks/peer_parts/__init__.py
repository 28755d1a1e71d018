"""The peers of peers.py: one file each, a program that trains a whole workload; common.py has what they share."""
