"""The machine that a benchmark runs on, and how much of its memory a group of processes holds."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from verdictree.runtime import processor


def describe() -> str:
    """Cores, processor and the widest vector instructions, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    known = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx512f": "AVX-512", "avx2": "AVX2"}
    vector = next((name for flag, name in known.items() if flag in processor.flags()), "no AVX2")
    return f"{os.cpu_count()} cores {model} ({vector})"


def fastest_float() -> str:
    """The type that others compute in: bfloat16, which a processor without instructions for it emulates, or float32."""
    return "float32" if processor.flags().isdisjoint(("avx512_bf16", "amx_bf16")) else "bfloat16"


def resident_megabytes(group: int) -> float:
    """Resident memory of a process group, in 2^20 bytes; a page that several processes share counts once.

    (Linux's proportional set size, summed. The sum of plain resident sizes would count shared libraries repeatedly.)
    """
    kilobytes = 0
    for rollup in Path("/proc").glob("[0-9]*/smaps_rollup"):
        try:
            if os.getpgid(int(rollup.parent.name)) == group:
                kilobytes += int(rollup.read_text().split("\nPss:")[1].split()[0])
        except (OSError, IndexError):
            continue  # a process that ended meanwhile, or a kernel thread
    return kilobytes / 1024
