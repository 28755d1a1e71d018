"""Data sets: each reader returns a FaceData.

dataset.py    FaceData
describe.py   the facts that `ferhpo data` prints
fer2013.py ckplus.py affectnet.py sfew.py merged.py image_folder.py image_table.py synthetic.py
              the readers, one per data set
labeled_files/
              the readers of data sets whose labels are in the names of files or in a list: RAF-DB, JAFFE, KDEF, FER+
io/           files, archives, tables, decoding, the cache
labels/       class names, label maps, votes, pseudo-labels
splits/       train, val, test and folds
features/     HOG features
"""
