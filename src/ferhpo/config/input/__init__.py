"""What the user wrote: overrides, files and values, read as they are meant.

overrides.py  overrides as text: paths as they are, and answers to the grammar of Hydra's own sweeps
hydra.py      what Hydra's command line has and ferhpo does not, with what does it here
layers.py     what a configuration is merged from, and where each value comes from
reader.py     YAML files in bounded memory, for the checks and for Hydra alike
files.py      their defaults lists and references
types.py      values as the types of a component's arguments
draws.py      the same for choices and bounds of the space
"""
