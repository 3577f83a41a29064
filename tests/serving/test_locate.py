"""Which Triton is used, and what is said when there is none."""

import shutil
import sys
from pathlib import Path

import pytest

from verdictree_serving import TritonNotFound
from verdictree_serving.server import locate


def fake_system_triton(home: Path) -> Path:
    binary = home / "bin" / "tritonserver"
    for file in (binary, home / "backends" / "onnxruntime" / "libtriton_onnxruntime.so"):
        file.parent.mkdir(parents=True)
        file.touch(mode=0o755)
    return binary


def test_complete_system_installation_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In NVIDIA's container the slow Python backend is served instead of the C++ one."""
    binary = fake_system_triton(tmp_path / "triton")
    monkeypatch.setattr(shutil, "which", lambda name: str(binary))
    installation = locate.find_installation()
    assert installation.binary == binary
    assert installation.backend_directory(tmp_path / "scratch") == tmp_path / "triton" / "backends"


def test_system_triton_without_onnxruntime_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Triton that cannot serve ONNX is started because it is first on PATH."""
    binary = fake_system_triton(tmp_path / "triton")
    shutil.rmtree(tmp_path / "triton" / "backends")
    monkeypatch.setattr(shutil, "which", lambda name: str(binary))
    assert "pytriton" in locate.find_installation().binary.parts


@pytest.mark.parametrize(("linked", "fits"), [("3.10", False), (f"3.{sys.version_info.minor}", True)])
def test_a_triton_of_another_python_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: str, fits: bool
) -> None:
    """Every model process fails to import, with a traceback each, in an image that is one release too old."""
    binary = fake_system_triton(tmp_path / "triton")
    stub = tmp_path / "triton" / "backends" / "python" / "triton_python_backend_stub"
    stub.parent.mkdir()
    stub.write_bytes(b"\x7fELF\0libpython" + linked.encode() + b".so.1.0\0")
    monkeypatch.setattr(shutil, "which", lambda name: str(binary))
    if fits:
        assert locate.find_installation().binary == binary
    else:
        with pytest.raises(TritonNotFound, match=rf"in Python {linked}, this is .*24\.11"):
            locate.find_installation()


def test_assembled_backends_are_complete(tmp_path: Path) -> None:
    """Triton refuses a backend library that a symlink leads out of its folder."""
    backends = locate.find_installation().backend_directory(tmp_path)
    assert (backends / "onnxruntime" / "model.py").is_file()
    assert {file.name for file in (backends / "python").iterdir()} == {
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    }
    assert not any(file.is_symlink() for file in backends.rglob("*"))


def test_model_processes_use_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an activated environment the model processes import another Python's packages, or none."""
    monkeypatch.setenv("PATH", "/usr/bin")
    environment = locate.find_installation().environment()
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"


def test_missing_wheel_is_one_line_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without the extra gets an ImportError from the depths."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TritonNotFound, match=r"pip install 'verdictree\[serve\]'"):
        locate.find_installation()


def test_numpy_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model process reads arrays of numpy 2 as if they were numpy 1's, and crashes at the first request."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.4.6")
    with pytest.raises(
        TritonNotFound, match=r"needs numpy 1, this environment has 2\.4\.6; fix: .*verdictree\[serve\]"
    ):
        locate.find_installation()


def test_missing_libpython_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Python without a shared library ends in `error while loading shared libraries` of a model process."""
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: str(tmp_path) if name == "LIBDIR" else None)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(TritonNotFound, match=r"libpython3\.\d+\.so\.1\.0.*--enable-shared"):
        locate.find_installation()
