"""Finds Triton: NVIDIA's own installation where it is complete, else the server inside the nvidia-pytriton wheel."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verdictree_serving.errors import TritonNotFound

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_LINKED_PYTHON = re.compile(rb"libpython(3\.\d+)\.so")
_STAND_INS = Path(__file__).parents[1] / "backends"
_FIX = "pip install 'verdictree[serve]'"
if sys.version_info >= (3, 13):  # for which there are no wheels of numpy 1, which the wheel's Triton needs
    _FIX = "use Python 3.11 or 3.12, and there " + _FIX


@dataclass(frozen=True)
class TritonInstallation:
    """A tritonserver binary and what it needs around it.

    `python_backend` lists the files of an incomplete installation's Python backend; it is empty where `backends`
    can be used as it is. `libraries` are folders for the dynamic linker.
    """

    binary: Path
    backends: Path
    caches: Path
    python_backend: tuple[Path, ...] = ()
    libraries: tuple[Path, ...] = ()

    def backend_directory(self, scratch: Path) -> Path:
        """A directory for `--backend-directory`, assembled inside `scratch` if need be."""
        if not self.python_backend:
            return self.backends
        directory = scratch / "backends"
        shutil.copytree(_STAND_INS, directory, ignore=shutil.ignore_patterns("__pycache__"))
        (directory / "python").mkdir()
        for file in self.python_backend:
            shutil.copy2(file, directory / "python")  # Triton refuses a library that a symlink leads out of the folder
        return directory

    def environment(self) -> dict[str, str]:
        """This process's environment, changed so that the server finds its libraries and this Python."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": _prepend(self.libraries, os.environ.get("LD_LIBRARY_PATH", "")),
            # The model processes ignore PYTHONPATH; they use the environment of the first `python3` on PATH.
            "PATH": _prepend([Path(sys.executable).parent], os.environ.get("PATH", os.defpath)),
        }


def _prepend(folders: Sequence[Path], search_path: str) -> str:
    return os.pathsep.join([*map(str, folders), *filter(None, [search_path])])


def find_installation() -> TritonInstallation:
    """The best Triton installation of this machine; raise `TritonNotFound` with the fix if there is none."""
    return _system_installation() or _embedded_installation()


def _system_installation() -> TritonInstallation | None:
    on_path = shutil.which("tritonserver")
    homes = [Path(on_path).resolve().parents[1]] if on_path else []
    for home in [*homes, Path("/opt/tritonserver")]:  # where NVIDIA's container has it
        binary, backends = home / "bin" / "tritonserver", home / "backends"
        if binary.is_file() and (backends / "onnxruntime" / "libtriton_onnxruntime.so").is_file():
            _check_python(backends / "python" / "triton_python_backend_stub")
            return TritonInstallation(binary, backends, home / "caches")
    return None


def _check_python(stub: Path) -> None:
    """Raise `TritonNotFound` where Triton runs its Python models in another Python than this one.

    The steps need the packages of this one; the stub names the library that it is linked to.
    """
    linked = _LINKED_PYTHON.search(stub.read_bytes()) if stub.is_file() else None
    if linked is not None and linked.group(1).decode() != _PYTHON:
        raise TritonNotFound(
            f"the Triton at {stub.parents[2]} runs its models in Python {linked.group(1).decode()}, this is {_PYTHON};"
            " fix: install verdictree into that Python (NVIDIA's images have 3.12 from 24.11 on), or take that Triton"
            " off PATH to use the nvidia-pytriton wheel"
        )


def _embedded_installation() -> TritonInstallation:
    package = importlib.util.find_spec("pytriton")
    if package is None or not package.submodule_search_locations:
        raise TritonNotFound(
            "no Triton server: neither NVIDIA's with its onnxruntime backend nor the nvidia-pytriton wheel is"
            f" installed; fix: {_FIX}"
        )
    _check_numpy()
    wheel = Path(package.submodule_search_locations[0])
    triton = wheel / "tritonserver"
    python_backend = (
        triton / "backends" / "python" / "libtriton_python.so",
        triton / "backends" / "python" / "triton_python_backend_utils.py",
        triton / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub",
    )
    binary = triton / "bin" / "tritonserver"
    for file in (binary, *python_backend):
        if not file.is_file():
            raise TritonNotFound(
                f"the nvidia-pytriton wheel lacks {file.relative_to(wheel)} (this is Python {_PYTHON});"
                " fix: use a Python and an nvidia-pytriton that fit each other"
            )
    libraries = (wheel.parent / "nvidia_pytriton.libs", *_libpython_folders())
    return TritonInstallation(binary, triton / "backends", triton / "caches", python_backend, libraries)


def _check_numpy() -> None:
    """Raise `TritonNotFound` for numpy 2: its arrays crash the wheel's Python backend at the first request."""
    version = importlib.metadata.version("numpy")
    if not version.startswith("1."):
        raise TritonNotFound(
            f"the Triton in the nvidia-pytriton wheel needs numpy 1, this environment has {version}; fix: {_FIX}"
        )


def _libpython_folders() -> tuple[Path, ...]:
    library = f"libpython{_PYTHON}.so.1.0"
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    libdir = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    folders = [Path(sys.base_prefix) / "lib", libdir, libdir / multiarch]
    for folder in folders:
        if (folder / library).is_file():
            return (folder,)
    if ctypes.util.find_library(f"python{_PYTHON}") is not None:
        return ()  # the dynamic linker finds it without help
    raise TritonNotFound(
        f"Triton's Python backend needs {library}, which is in none of {', '.join(map(str, folders))};"
        f" fix: install the system's libpython{_PYTHON} package, or use a Python built with --enable-shared"
    )
