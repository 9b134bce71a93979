"""kuat and other ways to make batches of images, measured side by side.

A module per peer, run as a process of its own in a virtual environment of its own (`scripts/peers.sh` makes them), so
that no two of them need the same version of anything. `peer.py` is what they have in common, `data.py` the photographs
that all of them yield, `check.py` the proof that they do, `worker.py` a peer's process, and `python -m peers` lets them
take turns.
"""

# The modules, and what their rows are called where one cannot even be started.
PEERS = {
    "kuat": "kuat",
    "raw": "raw memmap",
    "ffcv": "FFCV",
    "simplejpeg": "simplejpeg",
    "dali": "DALI, CPU",
    "torchvision": "torchvision ImageFolder",
    "webdataset": "WebDataset",
    "datasets": "Hugging Face datasets",
}
