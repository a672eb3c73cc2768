"""Train an image classifier: `python train.py`, or `python train.py --config configs/x.py --optim.peak-lr 0.2`."""

import sys

from jaxcnn.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]], is_program=True))
