"""Labels of images.

emotions.py       names of emotions and their spellings
class_names.py    names of classes; the labels of a data set in the class order of a model
label_map.py      the setting `labels`: classes to rename or drop
ferplus.py        FER+ votes as soft targets
pseudo_labels.py  a CSV of pseudo-labels
selection.py      the images that a reader keeps
"""
