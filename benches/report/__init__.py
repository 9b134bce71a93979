"""From programs that measure to a page that people read.

`collect.py` runs them and keeps their rows with what `provenance.py` says of the machine; `bars.py` holds the rows
against what they should reach; `page.py` and `plots.py` make BENCHMARKS.md of them. `python -m report` is the command.
"""
