"""Outputs of PyTorch's and Keras's networks for weights that anybody can rebuild; see make_golden.py."""
