"""Build libraries in the place of CUDA's, so that ONNX Runtime's CUDA provider loads without a card.

    python tests/gpu/stub_cuda/build.py WHEEL_FOLDER LIBRARIES

`cudart.c` keeps the record. All other functions that the provider asks for do nothing and succeed; they are generated
from the provider's own list of symbols. Needs gcc and nm.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_RUNTIME = Path(__file__).with_name("cudart.c")
_LAUNCHES = re.compile(r"[Gg]emm|Matmul$|geam|Transform$|copy|scal|ReduceTensor$|Forward$|ForwardInference$|Execute$")
_SPECIAL = {
    "cudnnGetVersion": "unsigned long cudnnGetVersion(void) { return 91200; }",
    "cublasLtMatmulAlgoGetHeuristic": (  # one algorithm, of 96 zero bytes
        "int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *e, void *p, int n,"
        " char *found, int *count) { __builtin_memset(found, 0, 96); *count = 1; return 0; }"
    ),
}


def main(wheel: Path, libraries: Path) -> None:
    """Write the libraries that the provider in the unpacked `wheel` links with, and cuDNN, which it opens itself."""
    provider = wheel / _PROVIDER
    libraries.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, list[str]] = {name: [] for name in ("libcudart.so.13", "libcuda.so.1", "libcurand.so.10")}
    for line in _lines("nm", "-D", "--undefined-only", str(provider)):
        symbol, _, library = line.split()[-1].partition("@")
        if symbol.startswith("cu") and not library:  # the driver's symbols have no version
            library = "libcuda.so.1"
        if library.startswith("libcu"):
            wanted.setdefault(library, []).append(symbol)
    strings = re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes())
    wanted["libcudnn.so.9"] = sorted({one.decode() for one in strings})
    for library, symbols in wanted.items():  # the runtime first, the others link with it
        _compile(libraries, library, symbols)


def _compile(libraries: Path, library: str, symbols: Iterable[str]) -> None:
    is_runtime = library.startswith("libcudart")
    own = set(re.findall(r"^[\w *]+?\b(\w+)\(", _RUNTIME.read_text(), re.M)) if is_runtime else set()
    source = libraries / f"{library}.c"
    declared = "void stub_launch(const char *name);\nvoid *stub_handle(void);\n"
    source.write_text(declared + "\n".join(_stub(symbol) for symbol in symbols if symbol not in own) + "\n")
    versions = libraries / f"{library}.map"
    versions.write_text(f"{library} {{ global: *; }};\n")  # symbols are asked for by version
    sources = [str(source), *([str(_RUNTIME)] if is_runtime else [f"-L{libraries}", "-l:libcudart.so.13"])]
    options = [f"-Wl,-soname,{library}", f"-Wl,--version-script={versions}", "-o", str(libraries / library)]
    subprocess.run(["gcc", "-O1", "-w", "-shared", "-fPIC", *sources, *options], check=True)


def _stub(symbol: str) -> str:
    if symbol in _SPECIAL:
        return _SPECIAL[symbol]
    if "Create" in symbol:
        return f"int {symbol}(void **made) {{ if (made) *made = stub_handle(); return 0; }}"
    if re.search(r"String|Name$", symbol):
        return f'const char *{symbol}(int status) {{ return "stub"; }}'
    if re.search(r"Get\w+Size\w*$", symbol):
        return f"int {symbol}(void *h, void *a, void *b, void *c, unsigned long *bytes) {{ *bytes = 0; return 0; }}"
    launch = f'stub_launch("{symbol}"); ' if _LAUNCHES.search(symbol) else ""
    return f"int {symbol}(void) {{ {launch}return 0; }}"


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
