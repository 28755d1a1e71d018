"""What a training takes from the device it runs on.

device.py         precision, memory format, torch's global switches
cuda.py           the GPU of a trial, its share of the memory, whose fault a lack of memory is
cpu_precision.py  the precision that a CPU is fastest in, measured
"""
