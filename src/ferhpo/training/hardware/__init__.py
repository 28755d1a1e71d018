"""What a training takes from the device it runs on.

device.py         precision, memory format, torch's global switches
cpu_precision.py  the precision that a CPU is fastest in, measured
"""
