"""Becomes the given command, which the kernel will end when the process that started it ends, however that dies.

A program of its own, run by path: code between fork and exec in the launcher is unsafe once that has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            sys.exit(1)
    os.execv(command[0], command)
