"""A peer's process: `python -m peers.worker NAME`, with questions as lines of JSON on stdin and answers on stdout.

The first line says where the photographs are. Each answer is an object; one with "error" says what went wrong.
"""

import importlib
import itertools
import json
import os
import sys
import time

from .check import check
from .data import Data


class Rows:
    """A module's peers, with what each of them shows."""

    def __init__(self, name, images, folder, workers, works, batches):
        data = Data(images, folder, workers)
        self.peers = [kind(data) for kind in importlib.import_module(f".{name}", __package__).PEERS]
        self.rows = [
            (peer, work, batch)
            for peer in self.peers
            for work in works
            for batch in sorted({*batches, *(peer.batches(work) if set(batches) == {64, 256} else ())})
        ]
        self.loaders = {}

    def list(self):
        return {"rows": [{"peer": peer.name, "work": work, "batch": batch} for peer, work, batch in self.rows]}

    def check(self, row):
        """Opens a row, checks an epoch of it, and says what is known of it."""
        peer, work, batch = self.rows[row]
        peer.prepare()
        loader = self.loaders[row] = peer.open(work, batch)
        checked, db = check(peer, work, loader)
        known = {"checked": checked, "workers": peer.data.workers, "version": peer.version()}
        known |= {"bytes_per_image": peer.bytes_per_image(), "code": peer.code}
        return known | ({} if db is None else {"psnr_db": round(db, 2)}) | peer.facts

    def measure(self, row, seconds):
        """Images per second over whole epochs, as many as fill the time."""
        peer, _, _ = self.rows[row]
        images = elapsed = 0
        while elapsed < seconds:
            epoch = iter(self.loaders[row])
            for _ in itertools.islice(epoch, peer.ready):
                pass
            start = time.perf_counter()
            for batch, _ in epoch:
                images += len(batch)
            elapsed += time.perf_counter() - start
        return {"images_per_s": images / elapsed}


def main():
    # What libraries print goes where errors go.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    rows = None
    for line in sys.stdin:
        question = json.loads(line)
        verb = question.pop("do")
        try:
            if verb == "list":
                rows = Rows(sys.argv[1], **question)
            answer = rows.list() if verb == "list" else getattr(rows, verb)(**question)
        except (Exception, SystemExit) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    # Workers of loaders, threads, memory: let the system have it all at once.
    os._exit(0)


if __name__ == "__main__":
    main()
