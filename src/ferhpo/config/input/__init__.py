"""What the user wrote: overrides, files and values, read as they are meant.

overrides.py  overrides as text: paths as they are, and answers to the grammar of Hydra's own sweeps
hydra.py      what Hydra's command line has and ferhpo does not, with what does it here
layers.py     what a configuration is merged from, and where each value comes from
files.py      YAML files in bounded memory, and their defaults lists
types.py      values as the types of a component's arguments
draws.py      the same for choices and bounds of the space
"""
