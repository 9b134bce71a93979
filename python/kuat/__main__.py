"""The `kuat` command."""

import os
import sys

from ._kuat import run_command


def main():
    # Keeps a layer that Mesa installs for choosing among GPUs, which kuat does itself, from writing to standard error.
    os.environ["NODEVICE_SELECT"] = "1"
    return run_command(["kuat", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
