"""Weights from elsewhere and for elsewhere: files, names, layouts, and a strict report of what went where.

files.py      a file, a hub name or a run -> named tensors, float32
names.py      our path <-> the name in a torchvision, timm or Keras checkpoint
layouts.py    our axes <-> theirs
importer.py   named tensors -> variables of a network
imported_run.py  variables -> a run folder with checkpoint 0
counterparts.py  whether another library has the same network
exporter.py   variables -> a file that PyTorch loads strictly
compare.py    the first layer at which two networks part
"""
