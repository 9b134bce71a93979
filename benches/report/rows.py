"""Choosing among rows."""

import statistics


class Rows(list):
    """Rows, flat dicts."""

    def where(self, table=None, **values):
        """Those of a table with these values; a collection stands for any of its own."""
        if table is not None:
            values["table"] = table
        return Rows(row for row in self if all(fits(row.get(key), value) for key, value in values.items()))

    def values(self, key):
        """The different values of a column, in order."""
        return sorted({row[key] for row in self if row.get(key) is not None})

    def best(self, key="images_per_s"):
        """The row with the highest value; None if there is none."""
        return max((row for row in self if row.get(key) is not None), key=lambda row: row[key], default=None)


def fits(value, wanted):
    return value in wanted if isinstance(wanted, (set, tuple)) else value == wanted


def ratio(row, other):
    """How many times as fast a peer's row is: the median of the rounds' ratios, which noise moves least."""
    if row is None or other is None:
        return None
    ours, theirs = row.get("rounds", []), other.get("rounds", [])
    if ours and len(ours) == len(theirs) and row.get("run") == other.get("run"):
        return statistics.median(a / b for a, b in zip(ours, theirs))
    return row["images_per_s"] / other["images_per_s"]


def ours(row):
    """Whether a row of the peers' table is kuat's."""
    return row["peer"].startswith("kuat")


def shown(rows):
    """The peers' rows; of kuat only the ways that its users are told to take."""
    return Rows(row for row in rows.where("peers") if not row["peer"].endswith("[ids]"))
