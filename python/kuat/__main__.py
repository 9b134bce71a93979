"""The `kuat` command."""

import sys

from ._kuat import run_command


def main():
    return run_command(["kuat", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
