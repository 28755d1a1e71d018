"""The model families, one a file, and what a network costs (count.py). A family needs torch and layers.py alone."""
