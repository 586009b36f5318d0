"""Serve the champion, or a folder: `python serve.py`. The same as `valence serve`."""

import sys

from app.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
