"""Components: what a `_target_` may name, and how it is found and called. Free of Hydra, because workers use it.

roles.py      what each section of a configuration accepts as its `_target_`
own_code.py   which modules outside ferhpo this process trusts, and their files
build.py      find a component and call it
kinds.py      what kind a component is: an estimator, a grid, a scheduler that never stops a trial
"""
