"""Damaged samples: named, left out or masked, and nothing else spoilt."""

import json
import pickle
import struct
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from helpers import DEVICES, GEOMETRIES, SAMPLES, UNIX, make
from oracle import decoded

import kuat

BAD = [2, 7]
GOOD = [sample for sample in range(SAMPLES) if sample not in BAD]
EVERYWHERE = ["cpu", *[f"{adapter['name']} ({adapter['api']})" for adapter in DEVICES]]


def header_of(file):
    length = struct.unpack("<Q", file[:8])[0]
    return json.loads(file[8 : 8 + length]), 8 + length


def flip(path, tensor, byte):
    """Flips a bit of a tensor."""
    file = bytearray(path.read_bytes())
    header, data = header_of(file)
    file[data + header[tensor]["data_offsets"][0] + byte] ^= 1
    path.write_bytes(file)


@pytest.fixture
def broken(tmp_path):
    """(path, images as they were): the samples BAD are damaged."""
    path = make(tmp_path / "broken.qvq", GEOMETRIES["rgb"])
    images = decoded(path)
    header, _ = header_of(path.read_bytes())
    begin, end = header["indices"]["data_offsets"]
    for sample in BAD:
        flip(path, "indices", (end - begin) // SAMPLES * sample + 5)
    return path, images


@pytest.mark.parametrize("device", EVERYWHERE)
def test_a_damaged_sample_raises_with_its_number(broken, device):
    path, images = broken
    archive = kuat.KuatArchive(path)
    for use in (
        lambda: archive.decode_batch([0, 7, 2], device=device),
        lambda: archive.get_indices_batch([7]),
        lambda: archive.get_packed_batch([7, 2]),
        lambda: archive.decode(7),
    ):
        with pytest.raises(kuat.Error, match="sample 7 is damaged"):
            use()
    np.testing.assert_array_equal(archive.decode_batch(GOOD, device=device), images[GOOD])
    assert archive.damaged == {}
    batches = kuat.KuatDataset(archive, 3, device=device).epoch()
    with pytest.raises(kuat.Error, match="sample 2 is damaged"):
        list(batches)


def test_opening_can_check_everything(broken):
    path, images = broken
    with pytest.raises(kuat.Error, match="broken.qvq: 2 of 9 samples are damaged: 2, 7; sample 2: its row"):
        kuat.KuatArchive(path, check="open")
    with pytest.warns(kuat.DamageWarning, match="left out"):
        archive = kuat.KuatArchive(path, check="open", damaged="skip")
    assert list(archive.damaged) == BAD and "CRC-32C" in archive.damaged[2]
    np.testing.assert_array_equal(archive.intact(range(SAMPLES)), GOOD)
    np.testing.assert_array_equal(archive.decode_batch(slice(None)), images[GOOD])


@pytest.mark.parametrize("device", EVERYWHERE)
@pytest.mark.parametrize("resident", [False, True])
def test_damaged_samples_are_left_out(broken, device, resident):
    path, images = broken
    archive = kuat.KuatArchive(path, damaged="skip")
    with pytest.warns(kuat.DamageWarning, match="sample . is damaged.*left out"):
        epoch = kuat.KuatDataset(archive, 4, device=device, resident=resident).epoch()
        batches = list(epoch)
    assert [batch["samples"].tolist() for batch in batches] == [[0, 1, 3], [4, 5, 6], [8]]
    for batch in batches:
        np.testing.assert_array_equal(batch["images"], images[batch["samples"]])
        np.testing.assert_array_equal(batch["labels"], archive.labels(batch["samples"]))
        assert batch["intact"].all() and batch["captions"] == archive.captions(batch["samples"])
    with warnings.catch_warnings():
        # Each is told of once.
        warnings.simplefilter("error")
        assert len(list(kuat.KuatDataset(archive, 4, device=device).epoch())) == 3
        np.testing.assert_array_equal(archive.decode_batch([8, 7, 1], device=device), images[[8, 1]])
    assert list(archive.damaged) == BAD
    with pytest.raises(kuat.Error, match="sample 7 is damaged"):
        archive.decode(7)


@pytest.mark.parametrize("device", EVERYWHERE)
@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_damaged_samples_are_masked(broken, device, resident, dtype):
    path, images = broken
    archive = kuat.KuatArchive(path, damaged="mask")
    options = {} if dtype == "uint8" else {"mean": 0.5, "std": 0.25}
    with pytest.warns(kuat.DamageWarning, match="masked"):
        dataset = kuat.KuatDataset(archive, 4, dtype=dtype, device=device, resident=resident, **options)
        batches = list(dataset.epoch())
    found = np.concatenate([batch["images"] for batch in batches])
    assert not found[BAD].any() and found.dtype == dtype
    wanted = images if dtype == "uint8" else (images / 255 - 0.5) / 0.25
    np.testing.assert_allclose(found[GOOD], wanted[GOOD], atol=1e-5)
    labels = np.concatenate([batch["labels"] for batch in batches])
    assert (labels[BAD] == -1).all() and archive.label(7) is None and archive.labels([7, 3]).tolist() == [-1, labels[3]]
    assert np.flatnonzero(~np.concatenate([batch["intact"] for batch in batches])).tolist() == BAD
    array = archive.decode_batch([7, 0], device=device)
    assert array.base.masked == [0] and not array[0].any()
    out = np.ones((2, *images.shape[1:]), np.uint8)
    assert not archive.decode_batch([0, 2], out, device=device)[1].any()
    assert not archive.decode(2).any() and not archive.get_indices_batch([2]).any()


def test_checks_can_be_left_out(broken):
    path, images = broken
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = kuat.KuatArchive(path, check="never").decode_batch(slice(None))
    np.testing.assert_array_equal(found[GOOD], images[GOOD])
    assert (found[BAD] != images[BAD]).any()


@pytest.mark.parametrize("tensor", ["codebook", "labels", "captions.bytes", "captions.offsets", "psnr"])
def test_damage_that_all_samples_share_is_an_error(tmp_path, tensor):
    path = make(tmp_path / "broken.qvq", GEOMETRIES["rgb"])
    flip(path, tensor, 9)
    archive = kuat.KuatArchive(path, damaged="skip")
    uses = {
        "codebook": lambda: archive.decode_batch([0], device="cpu"),
        "labels": lambda: archive.labels([0]),
        "captions": lambda: archive.caption(0),
        "psnr": lambda: archive.psnr,
    }
    for name, use in uses.items():
        if tensor.startswith(name):
            with pytest.raises(kuat.Error, match=f"tensor `{tensor}` is damaged"):
                use()
        else:
            use()
    with pytest.raises(kuat.Error, match=f"tensor `{tensor}` is damaged"):
        kuat.KuatArchive(path, check="open")


def test_options_are_checked_and_travel_with_the_archive(broken):
    path, _ = broken
    for name in ("check", "damaged", "access"):
        with pytest.raises(ValueError, match=f"{name} is often, expected"):
            kuat.KuatArchive(path, **{name: "often"})
    archive = pickle.loads(pickle.dumps(kuat.KuatArchive(path, damaged="skip", access="read")))
    with pytest.warns(kuat.DamageWarning):
        assert len(archive.decode_batch(slice(None))) == len(GOOD)


@UNIX
@pytest.mark.parametrize("access", ["map", "read"])
def test_a_file_that_was_cut_short_raises(tmp_path, access):
    path = make(tmp_path / "cut.qvq", GEOMETRIES["wide"])
    archive = kuat.KuatArchive(path, access=access)
    archive.decode_batch([0])
    with path.open("r+b") as file:
        file.truncate(4096)
    uses = [lambda: archive.decode_batch([8]), lambda: list(kuat.KuatDataset(archive, 2)), archive.verify]
    # Labels are still there for those who read.
    for use in uses if access == "read" else [*uses, lambda: archive.labels([8])]:
        with pytest.raises(kuat.Error, match="cut.qvq was cut short while it was open: it has 4096 bytes"):
            use()


@UNIX
def test_a_file_that_is_cut_while_it_is_read_does_not_kill(tmp_path):
    path = make(tmp_path / "cut.qvq", GEOMETRIES["wide"], samples=200)
    whole = path.read_bytes()
    program = """
        import sys, kuat
        archive = kuat.KuatArchive(sys.argv[1], access="read")
        print("ready", flush=True)
        errors = 0
        while errors < 20:
            try:
                archive.decode_batch(slice(None))
            except kuat.Error as error:
                assert "cut short" in str(error) or "is damaged" in str(error), error
                errors += 1
        print("survived", errors)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:
            # As `cp` does it: cut to nothing, then written anew.
            with path.open("wb") as file:
                file.write(whole[: len(whole) // 2])
                file.flush()
                file.write(whole[len(whole) // 2 :])
        output, errors = process.communicate()
    assert (process.returncode, output, errors) == (0, "survived 20\n", "")
