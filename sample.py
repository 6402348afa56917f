"""python sample.py "CAPTION" ... is dalle sample "CAPTION" ...."""

import sys

from dalle_mini_impl.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
