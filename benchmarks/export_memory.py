"""How much memory and time an export takes, for a guard of a stated shape.

    python -m benchmarks.export_memory llama-guard-3-1b --precision fp16

Weights are random, in exactly the shape; `--blocks` takes fewer of its blocks, for a smaller scale. The export runs in
a process of its own; its peak is the kernel's count of resident memory (VmHWM), mapped files included. The last line
is one JSON document.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import torch

from benchmarks import machine, random_checkpoint
from benchmarks.shapes import SHAPES
from verdictree_export.checkpoints.source import EMBEDDED

_POLICY = Path(__file__).with_name("policies") / "llama-guard-3-sized.yaml"


@click.command()
@click.argument("shape", type=click.Choice([name for name, changes in SHAPES.items() if changes]))
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp16", show_default=True)
@click.option("--blocks", type=click.IntRange(min=1), help="How many transformer blocks; default: the shape's own.")
def main(shape: str, precision: str, blocks: int | None) -> None:
    """Export a random guard of SHAPE and say what that took."""
    changes = {**(SHAPES[shape] or {}), **({"num_hidden_layers": blocks} if blocks else {})}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, repository = Path(scratch) / "checkpoint", Path(scratch) / "repository"
        random_checkpoint.write(checkpoint, EMBEDDED, torch.float16, **changes)
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
        program = Path(sys.executable).with_name("verdictree")
        command = [str(program), "export", str(checkpoint), "--family", "instruct"]
        command += ["--policy", str(_POLICY), "--repository", str(repository), "--precision", precision]
        command += ["--max-off-grammar", "1"]  # random weights answer no verdict
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        written = sum(path.stat().st_size for path in repository.glob("guard_lm/1/*.bin"))
    document = {
        "machine": machine.describe(),
        "shape": shape,
        "blocks": changes["num_hidden_layers"],
        "precision": precision,
        "checkpoint_gb": round(size / 1e9, 2),
        "release_gb": round(written / 1e9, 2),
        "peak_gb": round(peak / 1e9, 2),
        "seconds": round(seconds),
    }
    click.echo(json.dumps(document))


if __name__ == "__main__":
    main()
