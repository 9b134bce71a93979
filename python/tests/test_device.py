"""GPUs."""

import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from helpers import DEVICES, LINUX, assert_same, expected, outputs, run

import kuat


@pytest.mark.skipif(bool(os.environ.get("KUAT_TEST_WITHOUT_GPU")), reason="KUAT_TEST_WITHOUT_GPU is set")
def test_there_is_a_gpu():
    assert DEVICES, "no adapter; KUAT_TEST_WITHOUT_GPU=1 does without"
    for index, device in enumerate(DEVICES):
        assert device["index"] == index and device["kind"] in ("discrete", "integrated", "virtual", "software", "other")
        assert device["name"] and device["api"] in ("vulkan", "gl", "metal", "dx12") and device["max_buffer_size"] > 0


@pytest.mark.parametrize("device", DEVICES, ids=[f"{device['index']} {device['name']}" for device in DEVICES])
def test_gpus_give_what_cpus_do(case, device):
    ids = [0, 8, 4, -2]
    index = device["index"]
    for output in outputs(case.images.shape[3]):
        batch = case.archive.decode_batch(ids, device=index, **output)
        assert_same(batch, expected(case.images[ids], **output), output["dtype"])
        name = batch.base.device
        assert device["name"] in name and device["api"] in name.lower() and name == case.archive.device_name(index)
    named = case.archive.decode_batch(ids, device=device["name"], to="dlpack")
    assert device["name"] in named.device
    assert_same(named.numpy(), case.images[ids])
    out = np.empty_like(case.images[:2])
    assert case.archive.decode_batch([3, 3], out, device=index) is out
    assert_same(out, case.images[[3, 3]])
    found = case.archive.get_indices_batch(ids)
    assert_same(case.archive.decode_indices(found, device=index), case.images[ids])
    assert case.archive.decode_batch([], device=index).shape == (0, *case.images.shape[1:])


def test_devices_by_name(archive):
    batch = archive.decode_batch([0], device="cpu")
    assert batch.base.device == archive.device_name("cpu") == "cpu"
    found = archive.device_name()
    assert archive.decode_batch([0]).base.device == archive.decode_batch([0], device="auto").base.device == found
    if all(device["kind"] == "software" for device in kuat.devices()):
        assert found == "cpu"
        with pytest.raises(kuat.Error, match="no"):
            archive.device_name("gpu")
    else:
        assert archive.device_name("gpu") == found != "cpu"
    for wrong in ("no such adapter", 1000):
        with pytest.raises(kuat.Error) as raised:
            archive.decode_batch([0], device=wrong)
        assert str(wrong) in str(raised.value)
        assert all(device["name"] in str(raised.value) for device in DEVICES)
    for wrong in (None, 1.5, -1, True, ["cpu"], b"cpu", np.zeros(2)):
        with pytest.raises(TypeError, match="device"):
            archive.decode_batch([0], device=wrong)
        with pytest.raises(TypeError, match="device"):
            archive.device_name(wrong)
    with pytest.raises(ValueError, match="device"):
        archive.decode_batch([0], device="")


@pytest.mark.parametrize("device", DEVICES, ids=[f"{device['index']} {device['name']}" for device in DEVICES])
def test_archives_encoded_on_gpus_are_those_of_cpus(device, tmp_path):
    images = np.random.default_rng(8).integers(0, 256, (5, 21, 30, 3), dtype=np.uint8)
    options = {"size": (30, 21), "codebook": 32, "progress": False}
    assert kuat.encode(list(images), tmp_path / "cpu.qvq", **options)["device"] == "cpu"
    for given in (device["index"], device["name"]):
        summary = kuat.encode(list(images), tmp_path / "gpu.qvq", device=given, **options)
        assert device["name"] in summary["device"]
        assert (tmp_path / "gpu.qvq").read_bytes() == (tmp_path / "cpu.qvq").read_bytes()
    with kuat.ArchiveWriter(tmp_path / "gpu.qvq", device=device["index"], **options) as writer:
        for image in images:
            writer.add(image)
    assert (tmp_path / "gpu.qvq").read_bytes() == (tmp_path / "cpu.qvq").read_bytes()


def test_devices_to_encode_on_are_checked(tmp_path):
    for wrong, error in ((None, TypeError), (True, TypeError), ("", ValueError), ("no such adapter", kuat.Error)):
        with pytest.raises(error):
            kuat.encode([np.zeros((4, 4, 3), np.uint8)], tmp_path / "out.qvq", device=wrong)
    assert not any(tmp_path.iterdir())


LOST = """
    import ctypes, sys
    import numpy as np, kuat
    fault = ctypes.CDLL(sys.argv[2]).kuat_fault
    fault.argtypes = (ctypes.c_uint32, ctypes.c_uint64)
    archive = kuat.KuatArchive(sys.argv[1])
    images = archive.decode_batch(range(9), device="cpu")
    def lost(work):
        fault(4, 0)
        try:
            work()
        except kuat.Error as error:
            assert device["name"] in str(error) and "the device was lost" in str(error), error
        else:
            raise AssertionError("a lost device works")
        fault(0, 0)
    for device in kuat.devices():
        if device["api"] == "vulkan":
            index = device["index"]
            decode = lambda: archive.decode_batch(range(9), device=index)
            dataset = kuat.KuatDataset(archive, 1, device=index, resident=True)
            epoch = lambda: np.concatenate([batch["images"] for batch in dataset.epoch()])
            for work in (decode, epoch):
                assert (work() == images).all()
                lost(work)
                assert (work() == images).all()
            # Work under way.
            batches = dataset.epoch()
            next(batches)
            lost(lambda: list(batches))
            assert (decode() == images).all() and (epoch() == images).all()
    print("done")
"""


@LINUX
@pytest.mark.skipif(shutil.which("rustc") is None, reason="compiles a layer of Vulkan")
def test_a_gpu_that_was_lost_is_opened_anew(path, tmp_path):
    layer = tmp_path / "libkuat_faults.so"
    source = pathlib.Path(__file__).parents[2] / "tests/faults/layer.rs"
    options = ["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-o", layer]
    subprocess.run(["rustc", *options, source], check=True)
    about = {"name": "VK_LAYER_KUAT_faults", "type": "INSTANCE", "library_path": str(layer), "api_version": "1.3.0"}
    about |= {"implementation_version": "1", "description": "Calls fail as those of a lost GPU do"}
    (tmp_path / "faults.json").write_text(json.dumps({"file_format_version": "1.1.2", "layer": about}))
    env = {**os.environ, "VK_LAYER_PATH": str(tmp_path), "VK_INSTANCE_LAYERS": "VK_LAYER_KUAT_faults"}
    assert run(LOST, path, layer, env=env) == "done\n"
