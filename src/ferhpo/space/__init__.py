"""The search space.

draw.py   Draw: the distribution of one hyperparameter
space.py  Space: all draws of a sweep; sample and apply
lint.py   read(): turn YAML into a Space, and report every fault
link.py   resolve what `when` and `repeat` refer to
slices.py which draws each option of a group has
"""

from ferhpo.space.draw import Draw
from ferhpo.space.lint import read
from ferhpo.space.space import Sample, Space

__all__ = ["Draw", "Sample", "Space", "read"]
