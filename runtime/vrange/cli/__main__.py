"""`python -m vrange.cli`, for where the script isn't on the path."""

import sys

from vrange.cli import main

sys.exit(main())
