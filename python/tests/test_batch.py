"""Batches: DLPack, and the memory behind them."""

import ctypes
import os
import threading

import numpy as np
import pytest
from helpers import LINUX, SAMPLES, address, assert_same, expected, live, outputs

import kuat


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


class Managed(ctypes.Structure):
    """DLManagedTensor"""

    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p))]


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned"""

    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)), ("flags", ctypes.c_uint64), ("tensor", Tensor),
    ]  # fmt: skip


def contents(capsule):
    """What a capsule holds; a form is told by its name."""
    api = ctypes.pythonapi
    api.PyCapsule_IsValid.argtypes = api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    for name, form in ((b"dltensor", Managed), (b"dltensor_versioned", Versioned)):
        if api.PyCapsule_IsValid(capsule, name):
            pointer = api.PyCapsule_GetPointer(capsule, name)
            return form.from_address(pointer), pointer
    raise AssertionError(repr(capsule))


def test_batch(archive, images):
    for output in outputs(3):
        batch = archive.decode_batch([1, 2], to="dlpack", device="cpu", **output)
        wanted = expected(images[[1, 2]], **output)
        assert type(batch) is kuat.Batch and batch.device == "cpu"
        assert batch.shape == wanted.shape and len(batch) == 2 and batch.dtype == output["dtype"]
        assert batch.nbytes == wanted.size * np.dtype(batch.dtype).itemsize
        assert repr(batch) == f'Batch(shape={batch.shape}, dtype={batch.dtype}, device="cpu")'
        for array in (batch.numpy(), np.asarray(batch), np.from_dlpack(batch)):
            assert_same(array, wanted, batch.dtype)
            assert address(array) == address(batch.numpy())
    with pytest.raises(TypeError):
        kuat.Batch()
    empty = archive.decode_batch([], to="dlpack")
    assert len(empty) == empty.nbytes == 0 and np.from_dlpack(empty).shape == (0, 24, 40, 3)


def test_batch_as_array(archive, images):
    batch = archive.decode_batch([1], to="dlpack")
    view = batch.__array__()
    assert address(view) == address(batch.__array__(copy=False)) == address(batch.__array__(np.uint8))
    copied = batch.__array__(copy=True)
    assert address(copied) != address(view)
    assert_same(copied, images[1:2])
    assert np.asarray(batch, np.int32).dtype == np.int32 and np.array(batch).shape == batch.shape
    with pytest.raises(ValueError, match="copy"):
        batch.__array__(np.float64, copy=False)
    # They are one memory.
    view[0, 0, 0] = 77
    assert np.from_dlpack(batch)[0, 0, 0].tolist() == batch.numpy()[0, 0, 0].tolist() == [77, 77, 77]


@pytest.mark.parametrize("dtype, code, bits", [("uint8", 1, 8), ("float16", 2, 16), ("float32", 2, 32)])
def test_capsules(archive, dtype, code, bits):
    batch = archive.decode_batch([1, 2], to="dlpack", dtype=dtype, layout="NCHW")
    assert batch.__dlpack_device__() == (1, 0)
    arguments = [{}, {"max_version": (0, 8)}, {"max_version": None}, {"stream": None, "dl_device": (1, 0)}]
    versions = [{"max_version": version} for version in ((1, 0), (1, 1), (2, 0))]
    for argument in arguments + versions:
        for copied in (None, False, True):
            capsule = batch.__dlpack__(**argument, copy=copied)
            held, _ = contents(capsule)
            assert isinstance(held, Versioned) == (argument in versions)
            tensor = held.tensor
            assert (tensor.device_type, tensor.device_id, tensor.ndim, tensor.byte_offset) == (1, 0, 4, 0)
            assert (tensor.code, tensor.bits, tensor.lanes) == (code, bits, 1)
            assert tensor.shape[:4] == [2, 3, 24, 40] and tensor.strides[:4] == [3 * 24 * 40, 24 * 40, 40, 1]
            assert (tensor.data == address(batch.numpy())) == (not copied)
            data = (ctypes.c_uint8 * batch.nbytes).from_address(tensor.data)
            assert bytes(data) == batch.numpy().tobytes()
            if argument in versions:
                assert (held.major, held.minor, held.flags) == (1, 0, 2 if copied else 0)


def test_capsules_that_are_refused(archive):
    batch = archive.decode_batch([0], to="dlpack")
    for stream in (0, 1, -1, "x"):
        with pytest.raises(BufferError, match="stream"):
            batch.__dlpack__(stream=stream)
    for device in ((2, 0), (1, 1), (13, 0)):
        with pytest.raises(BufferError, match="host memory"):
            batch.__dlpack__(dl_device=device)
    with pytest.raises(TypeError):
        batch.__dlpack__(None)
    with pytest.raises(TypeError):
        batch.__dlpack__(max_version="1.0")


def test_memory_lives_as_long_as_it_is_used(path, images):
    before = live()
    archive = kuat.KuatArchive(path)
    arrays = [archive.decode(0), archive.decode_batch([0]), archive.codebook, archive.codebook_numpy(),
              archive.get_indices_batch([0]), archive.get_packed_batch([0])]  # fmt: skip
    assert live() == before + len(arrays)
    arrays[1] = arrays[1][0, :, ::2]
    assert live() == before + len(arrays)
    del arrays
    assert live() == before

    batch = archive.decode_batch([1], to="dlpack")
    array = np.from_dlpack(batch)
    assert live() == before + 1
    archive.close()
    del batch, archive
    assert live() == before + 1
    assert_same(array, images[1:2])
    del array
    assert live() == before


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_capsules_live_as_long_as_they_are_used(archive, images, version):
    before = live()
    batch = archive.decode_batch([1], to="dlpack")
    capsules = [batch.__dlpack__(max_version=version) for _ in range(3)]
    assert live() == before + 1
    capsules.append(batch.__dlpack__(max_version=version, copy=True))
    assert live() == before + 2
    del batch
    assert live() == before + 2
    held, _ = contents(capsules[0])
    data = (ctypes.c_uint8 * images[1].size).from_address(held.tensor.data)
    assert bytes(data) == images[1].tobytes()
    # Nobody took these.
    del capsules[1:]
    assert live() == before + 1
    # A consumer renames what it takes and calls the deleter, on any thread.
    capsule, (held, pointer) = capsules[0], contents(capsules[0])
    api = ctypes.pythonapi
    api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = b"used_dltensor"
    assert api.PyCapsule_SetName(capsule, name) == 0
    del capsules, capsule
    assert live() == before + 1
    thread = threading.Thread(target=held.deleter, args=(pointer,))
    thread.start()
    thread.join()
    assert live() == before


def test_jax_takes_batches_without_a_copy(archive, images):
    if os.environ.get("KUAT_TEST_WITHOUT_JAX") == "1":
        pytest.skip("KUAT_TEST_WITHOUT_JAX is set")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    before = live()
    for output in outputs(3):
        batch = archive.decode_batch([1, 2], to="dlpack", **output)
        array = jax.dlpack.from_dlpack(batch)
        assert array.unsafe_buffer_pointer() == address(batch.numpy())
        del batch
        assert live() == before + 1
        assert_same(np.asarray(array), expected(images[[1, 2]], **output), output["dtype"])
        del array
        assert live() == before


def test_memory_is_used_again(archive):
    ids = list(range(SAMPLES)) * 50
    first = archive.decode_batch(ids)
    place = address(first)
    second = archive.decode_batch(ids)
    assert address(second) != place
    del first
    third = archive.decode_batch(ids)
    assert address(third) == place
    batch = archive.decode_batch(ids, to="dlpack")
    place, array = address(batch.numpy()), np.from_dlpack(batch)
    del batch
    fourth = archive.decode_batch(ids)
    assert address(fourth) != place
    del array
    assert address(archive.decode_batch(ids)) == place


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@LINUX
def test_memory_does_not_grow(archive):
    ids = list(range(SAMPLES)) * 40

    def use(count):
        for i in range(count):
            archive.decode_batch(ids, dtype="float32", device="cpu")
            np.from_dlpack(archive.decode_batch(ids, to="dlpack", device="cpu"))
            archive.decode_batch(ids, to="dlpack", device="cpu").__dlpack__()
            archive.get_indices_batch(ids), archive.captions(ids), archive.labels(ids), archive.decode(0)
            for batch in kuat.KuatDataset(archive, 4, shuffle=True, device="cpu") if i % 20 == 0 else ():
                del batch

    use(100)
    before = resident()
    use(1000)
    # A batch of each kind is 5 MB: none of the thousand may stay.
    assert resident() - before < 5_000_000
