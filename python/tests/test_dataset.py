"""Epochs of numpy batches."""

import time

import numpy as np
import pytest
from helpers import DEVICES, SAMPLES, address, assert_same, expected, live, outputs

import kuat


def test_dataset(case):
    dataset = kuat.KuatDataset(case.path, batch_size=4)
    assert len(dataset) == 3 and dataset.archive.path == case.path and dataset.batch_size == 4
    assert repr(dataset) == f"KuatDataset({dataset.archive!r}, batch_size=4)"
    for batches in (list(dataset), list(dataset.epoch(7)), list(dataset)):
        assert [len(batch["images"]) for batch in batches] == [4, 4, 1]
        assert all(set(batch) == {"images", "labels", "captions"} for batch in batches)
        assert_same(np.concatenate([batch["images"] for batch in batches]), case.images)
        np.testing.assert_array_equal(np.concatenate([batch["labels"] for batch in batches]), case.tensors["labels"])
        assert [caption for batch in batches for caption in batch["captions"]] == case.archive.captions(slice(None))
        assert all(batch["labels"].dtype == np.int64 for batch in batches)


def order(dataset, epoch=0):
    """The samples of an epoch, by their captions."""
    return [int(caption.split()[1]) for batch in dataset.epoch(epoch) for caption in batch["captions"]]


def test_shuffled_epochs(path):
    dataset = kuat.KuatDataset(path, 2, shuffle=True, seed=5)
    orders = [order(dataset, epoch) for epoch in range(6)]
    assert all(sorted(found) == list(range(SAMPLES)) for found in orders)
    assert len(set(map(tuple, orders))) == 6
    again = kuat.KuatDataset(kuat.KuatArchive(path), 2, shuffle=True, seed=5)
    assert [order(again, epoch) for epoch in range(6)] == orders
    # Batches are cut from one order.
    assert order(kuat.KuatDataset(path, 9, True, 5), 3) == orders[3]
    assert order(kuat.KuatDataset(path, 2, shuffle=True, seed=6)) != orders[0]
    # A position is as good as any for each sample.
    seen = np.array([order(kuat.KuatDataset(path, SAMPLES, True), epoch) for epoch in range(300)])
    counts = np.array([np.bincount(column, minlength=SAMPLES) for column in seen.T])
    assert counts.min() > 10 and counts.max() < 70


def test_last_batch(path, images):
    dataset = kuat.KuatDataset(path, 4, drop_last=True)
    assert len(dataset) == 2 and order(dataset) == list(range(8))
    dataset = kuat.KuatDataset(path, 4, shuffle=True, drop_last=True)
    assert len(set(order(dataset))) == 8
    assert len(kuat.KuatDataset(path, 3, drop_last=True)) == len(kuat.KuatDataset(path, 3)) == 3
    assert len(kuat.KuatDataset(path, 100)) == 1 and len(list(kuat.KuatDataset(path, 100))) == 1
    assert (
        len(kuat.KuatDataset(path, 100, drop_last=True)) == 0 == len(list(kuat.KuatDataset(path, 100, drop_last=True)))
    )


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("device", ["auto", "cpu", *(device["index"] for device in DEVICES)])
def test_outputs_of_datasets(path, images, device, resident):
    archive = kuat.KuatArchive(path)
    for output in outputs(3):
        dataset = kuat.KuatDataset(archive, 4, True, 1, device=device, resident=resident, **output)
        assert dataset.archive is archive
        for batch in dataset:
            ids = [int(caption.split()[1]) for caption in batch["captions"]]
            np.testing.assert_array_equal(batch["images"], archive.decode_batch(ids, device=device, **output))
            assert_same(batch["images"], expected(images[ids], **output), output["dtype"])
            assert batch["images"].base.device == archive.device_name(device)


def test_batches_that_are_kept_stay_as_they_are(path, images):
    before = live()
    batches = list(kuat.KuatDataset(path, 1).epoch())
    assert len({address(batch["images"]) for batch in batches}) == len(batches) == SAMPLES
    assert_same(np.concatenate([batch["images"] for batch in batches]), images)
    del batches
    assert live() == before
    # An epoch that is left early gives back what was made ahead.
    for _batch in kuat.KuatDataset(path, 1):
        break
    del _batch
    end = time.monotonic() + 10
    while live() != before and time.monotonic() < end:
        time.sleep(0.01)
    assert live() == before


def test_datasets_without_captions(plain):
    (batch,) = kuat.KuatDataset(plain)
    assert batch["captions"] is None and batch["labels"].tolist() == [-1, -1, -1]


def test_datasets_that_are_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        kuat.KuatDataset(tmp_path / "missing.qvq")
    for wrong in ({"batch_size": 0}, {"layout": "HWC"}, {"dtype": "int8"}, {"mean": 0.5}, {"mean": 0.5, "std": 0.5}):
        with pytest.raises(ValueError):
            kuat.KuatDataset(path, **wrong)
    for wrong in ({"batch_size": "4"}, {"batch_size": 2.5}, {"device": 2.5}):
        with pytest.raises(TypeError):
            kuat.KuatDataset(path, **wrong)
    with pytest.raises(kuat.Error, match="no such adapter"):
        kuat.KuatDataset(path, device="no such adapter")
    with pytest.raises(ValueError):
        kuat.KuatDataset(path, -1)
    with pytest.raises(ValueError):
        kuat.KuatDataset(path, seed=-1)
    with pytest.raises(TypeError):
        kuat.KuatDataset(5)


def test_iterating_goes_through_the_epochs(path):
    dataset = kuat.KuatDataset(path, 3, shuffle=True)
    found = [np.concatenate([batch["images"] for batch in dataset]) for _ in range(2)]
    for epoch, images in enumerate(found):
        assert (images == np.concatenate([batch["images"] for batch in dataset.epoch(epoch)])).all()
    assert (found[0] != found[1]).any()
