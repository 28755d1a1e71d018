"""Files of data sets: safe reading, decoding and the cache.

tree.py             folders and zip files as lists of files
files.py            image decoding
cache.py            the cache of decoded arrays on disk
class_folders.py    one folder per class
emotion_folders.py  one folder per emotion
table.py            CSV and Parquet files with one row per image
parquet.py          the columns of a Parquet file
columns.py          what the columns of such a table mean
fer2013_csv.py      the FER2013 CSV and the FER+ votes
ckplus_original.py  the original directories of CK+
faults.py           faults of a data set, collected while it is read, and limits
"""
