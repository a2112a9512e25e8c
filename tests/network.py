"""Whether processes can be kept from the network here."""

import subprocess
import sys


def can_be_left() -> bool:
    """Whether this kernel gives a process a network of its own."""
    program = "import sys; from trivet.backends.confinement import leave_network as leave; "
    told = subprocess.run([sys.executable, "-c", program + "sys.exit(bool(leave()))"])
    return told.returncode == 0
