"""What importing kuat does."""

import os
import sys

import pytest
from helpers import LINUX, run

import kuat


def test_importing_kuat_loads_little():
    code = """
        import sys, kuat
        print(*sorted({"numpy", "torch", "tqdm", "PIL", "typing"} & set(sys.modules)))
        with open("/proc/self/maps") as maps:
            print("libvulkan" in maps.read())
    """
    if sys.platform.startswith("linux"):
        assert run(code).splitlines() == ["", "False"]


@LINUX
def test_default_device_loads_no_gl(path):
    """Mesa's drivers for it make the symbols of their LLVM global, on which libraries with another one crash."""
    code = """
        import sys, kuat
        kuat.KuatArchive(sys.argv[1]).decode_batch([0])
        list(kuat.KuatDataset(sys.argv[1]))
        with open("/proc/self/maps") as maps:
            loaded = maps.read()
        print(any(name in loaded for name in ("libEGL", "swrast_dri", "libgallium")))
    """
    environment = {key: value for key, value in os.environ.items() if key != "WGPU_BACKEND"}
    assert run(code, path, env=environment) == "False\n"


def test_names():
    lazy = {"GPUDataset", "GPUDecoder"}
    assert set(dir(kuat)) == set(kuat.__all__) | lazy >= {"KuatArchive", "Batch", "__version__", "devices"}
    assert kuat.KuatArchive.__module__ == kuat.Batch.__module__ == kuat.Error.__module__ == "kuat"
    assert issubclass(kuat.Error, Exception)
    with pytest.raises(AttributeError, match="no attribute 'Archive'"):
        _ = kuat.Archive
    documented = [getattr(kuat, name) for name in kuat.__all__ if not name.startswith(("IMAGENET", "GPU", "__"))]
    for kind in (kuat.KuatArchive, kuat.Batch, kuat.KuatDataset):
        documented += [value for name, value in vars(kind).items() if not name.startswith("_")]
    assert all(value.__doc__ for value in documented)


@pytest.mark.parametrize("unoptimized", [True, False])
def test_builds_without_optimisation_warn(unoptimized):
    code = """
        import importlib.machinery, importlib.util, sys, warnings
        folder = importlib.util.find_spec("kuat").submodule_search_locations
        spec = importlib.machinery.PathFinder.find_spec("_kuat", folder)
        spec.name = spec.loader.name = "kuat._kuat"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.UNOPTIMIZED = sys.argv[1] == "True"
        sys.modules["kuat._kuat"] = module
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import kuat
        print(any("without optimisation" in str(warning.message) for warning in caught))
    """
    assert run(code, unoptimized) == f"{unoptimized}\n"
