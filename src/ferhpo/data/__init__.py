"""Data sets: each reader returns a FaceData.

dataset.py    FaceData
describe.py   the facts that `ferhpo data` prints
fer2013.py ckplus.py affectnet.py sfew.py merged.py image_folder.py synthetic.py
              the readers, one per data set
io/           files, archives, decoding, the cache
labels/       class names, label maps, votes, pseudo-labels
splits/       train, val, test and folds
features/     HOG features
"""
