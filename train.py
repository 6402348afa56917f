"""python train.py CONFIG [...] is dalle train CONFIG [...]."""

import sys

from dalle_mini_impl.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
