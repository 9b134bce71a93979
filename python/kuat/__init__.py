"""Image data sets as vector-quantised archives, decoded by a gather on any CPU or GPU."""

from ._encode import ArchiveWriter, encode
from ._kuat import UNOPTIMIZED, Error, __version__, set_num_threads

__all__ = ["ArchiveWriter", "Error", "__version__", "encode", "set_num_threads"]
