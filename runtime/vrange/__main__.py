"""`python -m vrange`, which is the command `vrange` where that is not on the path."""

import sys

from vrange.cli import main

sys.exit(main())
