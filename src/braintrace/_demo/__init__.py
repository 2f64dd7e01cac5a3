"""The demo: two networks learn, online and by BPTT, to tell nine speakers apart from real
recordings.
"""

from ._run import run as run
