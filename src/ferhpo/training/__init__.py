"""Training of one network or estimator.

settings.py    the settings of conf/trainer
augment.py     augmentation of a batch of images, on the device
batches.py     the batches of an epoch
schedules.py   learning rate schedules
averaging.py   averages of the weights
hardware/      precision, memory format, torch's global switches, GPUs
steps/         the training steps of an epoch, as a CUDA graph if possible
epoch_end.py   the end of an epoch: validation, checkpoints, report
lightning.py   messages, handlers and errors of Lightning
fit.py         the training of a network, from its last checkpoint if there is one
estimator.py   the fit of a scikit-learn estimator
checkpoint.py  last.ckpt, best.ckpt and the networks of epochs to keep

Note: importing steps/, lightning.py, epoch_end.py, fit.py or estimator.py imports Lightning and torchmetrics, which
takes seconds.
The others need torch at most.
"""
