"""Score a network on a split.

predict.py      predictions and metrics of a split
metrics.py      the metrics that every epoch reports
objective.py    the objective, and what "best" means
scores.py       scores of all images and of deduplicated ones
ten_crop.py     predictions averaged over ten crops
preprocess.py   pixels to network input
device_data.py  the data set on the device
exact.py        float32 without TF32
kept.py         predictions that stay when checkpoints are removed
statistics/     statistics of predictions
collapse.py     networks that nearly always predict the same class
"""
