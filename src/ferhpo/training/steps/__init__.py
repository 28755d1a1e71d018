"""The steps of an epoch.

module.py      the LightningModule: the loop over the batches of an epoch
parameters.py  what an optimizer gets, and how it updates
probe.py       a test of the memory before the first epoch
"""
