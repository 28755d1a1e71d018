"""The model families, one per file.

cnn.py resnet.py vit.py backbone.py estimators.py
              the families; each imports only torch (or its own library), layers.py and attention.py
layers.py     the parts that they share
attention.py  attention over channels, pixels and tokens
count.py      parameters, multiply-accumulates and memory of a network
"""
