"""The command from a checkout: `python -m shim.cli`."""

import sys

from shim.cli import main

if __name__ == "__main__":
    sys.exit(main())
