"""The steps of an epoch.

module.py      the LightningModule: the loop over the batches of an epoch
parameters.py  what an optimizer gets, and how it updates
graph.py       forward, loss and backward of a step, recorded once and replayed
recorders.py   how operations are recorded: as a CUDA graph, or its stand-in on a CPU
snapshot.py    what a recording must leave as it was, and what makes it outdated
probe.py       a test of the memory before the first epoch
"""
