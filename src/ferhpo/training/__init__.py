"""Training of one network.

settings.py    what conf/trainer sets
augment.py     random changes of a batch of images, on the device
preprocess.py  pixels to what a network sees, in training, evaluation and inference alike
batches.py     the data set on the device, and the batches of an epoch
schedules.py   learning rates over an epoch's steps
averaging.py   averages of the weights
module.py      the LightningModule: loss and the order of a step
fit.py         one training from its last checkpoint to its end
checkpoint.py  last.ckpt, best.ckpt and the networks of epochs that are kept
evaluation.py  metrics of a network on a split

Importing module.py or fit.py imports Lightning, evaluation.py torchmetrics: seconds. The others need torch at most.
"""
