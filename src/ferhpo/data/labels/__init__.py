"""Labels of images.

emotions.py       names of emotions and their spellings
class_names.py    the same classes in another order
label_map.py      the setting `labels`
ferplus.py        FER+ votes as soft targets
pseudo_labels.py  a CSV of pseudo-labels
selection.py      which images a reader keeps
"""
