"""The command line: everything that the dashboard starts can be started here. `python -m core --help`."""

import os
import sys

from core.cli.main import main
from core.cli.shared import INTERRUPTED

# Threads that wait for each other sleep instead of spinning, before torch reads it: beside a second process on the same
# two cores, spinning made a forward pass five times slower; alone it made no difference.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


__all__ = ["main"]

if __name__ == "__main__":
    status = main()
    if status == INTERRUPTED:
        # Where Ctrl-C met an import inside of a C extension, Python would exit as killed by the signal
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
