"""Train and compare models: `python train.py lstm transformer`. The same as `valence train`."""

import sys

from app.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
