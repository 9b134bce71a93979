"""Trains a small network with jax, which takes kuat's batches from their memory."""

import argparse
import time

import jax
import jax.numpy as jnp
from tqdm import tqdm

import kuat


def network(key, *widths):
    shapes = list(zip(widths, widths[1:]))
    keys = jax.random.split(key, len(shapes))
    return [(jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, jnp.zeros(m)) for k, (n, m) in zip(keys, shapes)]


def scores(parameters, images):
    values = images.reshape(len(images), -1)
    for weights, bias in parameters[:-1]:
        values = jax.nn.relu(values @ weights + bias)
    return values @ parameters[-1][0] + parameters[-1][1]


@jax.jit
def step(parameters, images, labels, rate=0.02):
    def loss(parameters):
        found = scores(parameters, images)
        entropy = -jnp.take_along_axis(jax.nn.log_softmax(found), labels[:, None], 1).mean()
        return entropy, (found.argmax(1) == labels).sum()

    (entropy, right), slopes = jax.value_and_grad(loss, has_aux=True)(parameters)
    return jax.tree.map(lambda value, slope: value - rate * slope, parameters, slopes), entropy, right


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive")
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()

    data = kuat.KuatDataset(args.archive, 64, shuffle=True, drop_last=True, dtype="float32", mean=0.5, std=0.25)
    channels, height, width = data.archive.dimensions
    parameters = network(jax.random.key(0), channels * height * width, 128, len(data.archive.classes))
    for epoch in range(args.epochs):
        start, total, right = time.perf_counter(), 0.0, 0
        for batch in tqdm(data.epoch(epoch), f"epoch {epoch}", len(data), leave=False):
            images = jax.dlpack.from_dlpack(batch["images"])
            parameters, entropy, correct = step(parameters, images, batch["labels"])
            total, right = total + entropy, right + correct
        count = len(data) * data.batch_size
        loss, accuracy = float(total) / len(data), int(right) / count  # Waits for jax.
        speed = count / (time.perf_counter() - start)
        print(f"epoch {epoch}: loss {loss:.3f}, accuracy {accuracy:.1%}, {speed:,.0f} images/s")


if __name__ == "__main__":
    main()
