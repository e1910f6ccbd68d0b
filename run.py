"""Start the server from a checkout: `python run.py --help`."""

import sys

from jarvis_stream import cli

sys.exit(cli.main())
