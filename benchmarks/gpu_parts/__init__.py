"""The parts of gpu.py: one file each, with a function `run(rows)`; common.py has what they share."""
