"""`python -m stapes` is the command `stapes`."""

import sys

from stapes.cli.main import program

if __name__ == "__main__":
    sys.exit(program())
