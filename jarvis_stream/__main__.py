"""`python -m jarvis_stream`."""

import sys

from jarvis_stream import cli

sys.exit(cli.main())
