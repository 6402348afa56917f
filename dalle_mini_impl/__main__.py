"""`python -m dalle_mini_impl` is the command `dalle`."""

import sys

from dalle_mini_impl.cli import main

if __name__ == "__main__":
    sys.exit(main())
