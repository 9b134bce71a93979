"""How Python sees the progress of long work."""

from contextlib import contextmanager


def check(progress):
    """Raises TypeError unless `progress` says how progress is shown."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"progress is {progress!r}, expected True, False or a callable (stage, done, total)")


@contextmanager
def reporting(progress):
    """The callable `(stage, done, total)` that `progress` stands for, or None."""
    check(progress)
    if progress is not True:
        yield progress or None
        return
    bars = Bars()
    try:
        yield bars
    finally:
        bars.close()


class Bars:
    """A tqdm bar for each stage."""

    def __init__(self):
        self._stage = self._bar = None

    def __call__(self, stage, done, total):
        if stage != self._stage:
            # Not before it is needed: it looks for notebooks when it is imported.
            from tqdm.auto import tqdm

            self.close()
            unit = " patches" if stage == "training" else " images"
            self._stage, self._bar = stage, tqdm(desc=stage, total=total or None, unit=unit, unit_scale=True)
        self._bar.update(done - self._bar.n)

    def close(self):
        if self._bar is not None:
            self._bar.close()
        self._stage = self._bar = None
