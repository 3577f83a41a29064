"""A program of its own that asks a guard as fast as it answers, until a file disappears, and writes what it got.

Usage: load.py URL FLAG_FILE RESULTS NUM_THREADS. A result is [begin, end, text, release, p_unsafe] or, for a request
that failed, [begin, end, text, null, error]; times are seconds since the epoch.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

TEXTS = [f"Question {i}: " + "why " * (i % 7 + 1) + "?" for i in range(12)]


def body(text: str) -> triton.InferInput:
    tensor = triton.InferInput("request", [1, 1], "BYTES")
    request = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    tensor.set_data_from_numpy(np.array([[request]], dtype=object))
    return tensor


def main(url: str, flag: Path, results: Path, num_threads: int) -> None:
    found: list[list[object]] = []

    def ask(offset: int) -> None:
        with triton.InferenceServerClient(url) as client:
            number = offset
            while flag.exists():
                text = number % len(TEXTS)
                tensor, begin = body(TEXTS[text]), time.time()
                try:
                    verdict = json.loads(client.infer("guard", [tensor]).as_numpy("verdict").item())
                    found.append([begin, time.time(), text, verdict["release"], verdict["p_unsafe"]])
                except Exception as error:
                    found.append([begin, time.time(), text, None, str(error)])
                number += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
