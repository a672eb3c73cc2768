"""The output of the frozen part of a network, computed once an image (or once a view of it) and kept on disk.

points.py     where the network is cut, and what is refused
keys.py       what a file of features is known by
files.py      one file: written whole or not at all, known to be whole when it is read
extraction.py the passes through the frozen part
reading.py    features in the place of images: what training and evaluation read, and the network that goes on
"""
