"""`python -m stapes` is the command `stapes`."""

import sys

from stapes.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
