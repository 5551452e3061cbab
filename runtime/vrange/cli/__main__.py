"""`python -m vrange.cli`, for use when the script isn't on the path."""

import sys

from vrange.cli import main

sys.exit(main())
