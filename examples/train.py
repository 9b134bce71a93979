"""Trains a small network on an archive, or on a folder of class folders, which is encoded first."""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

import kuat


def network(channels, classes):
    layers = []
    for width in (32, 64, 128):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, classes))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="an archive, or a folder with one folder per class")
    parser.add_argument("--device", default="auto", help='"auto", torch\'s "cuda", "mps", "cpu", or an adapter')
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="side of the images if a folder is encoded")
    args = parser.parse_args()

    path = args.data
    if path.is_dir():
        path = Path(f"{path.resolve().name}.qvq")
        kuat.encode(args.data, path, size=args.size, patch=2)
    dataset = kuat.GPUDataset(path, args.device)
    print(f"{len(dataset)} images of {len(dataset.classes)} classes, decoded by {dataset.decoder.decoded_by}")

    torch.manual_seed(0)
    model = network(dataset.archive.dimensions[0], len(dataset.classes)).to(dataset.decoder.device)
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(args.epochs):
        start, total, right = time.perf_counter(), 0.0, 0
        batches = dataset.batches(args.batch_size, shuffle=True, epoch=epoch)
        for images, labels in tqdm(batches, f"epoch {epoch}", leave=False):
            scores = model(images)
            loss = F.cross_entropy(scores, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(labels)
            right += (scores.argmax(1) == labels).sum()
        mean, accuracy = float(total) / len(dataset), int(right) / len(dataset)
        speed = len(dataset) / (time.perf_counter() - start)
        print(f"epoch {epoch}: loss {mean:.3f}, accuracy {accuracy:.1%}, {speed:,.0f} images/s")


if __name__ == "__main__":
    main()
