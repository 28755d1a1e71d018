"""Data sets whose labels are in the names of their files, or in a list beside them.

jaffe.py     JAFFE: KA.AN1.39.tiff
kdef.py      KDEF: AF01ANS.JPG
rafdb.py     RAF-DB: list_patition_label.txt
ferplus.py   FER+ in folders: fer2013new.csv
decode.py    the files and labels of all of them, decoded
"""
