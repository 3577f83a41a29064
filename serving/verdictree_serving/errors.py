"""The errors of serving; every message is one line that says what was expected, what was got, and the fix.

VerdictreeError
└── ServingError
    ├── TritonNotFound       no usable Triton installation on this machine
    ├── PortInUse            a port that was asked for is taken
    ├── ServerFailed         the server ended before, or while, it was needed
    ├── NotReadyInTime       the server runs but its models are not ready
    ├── Stopped              told to stop before the server was ready
    ├── MachineUnfit         this machine lacks what a server needs: file descriptors, memory, space
    ├── InvalidModelConfig   a config.pbtxt that the onnxruntime stand-in cannot honour
    └── InferenceFailed      one request that the ONNX graph cannot answer
        └── InvalidInput     because of what it asks
"""

from __future__ import annotations

from verdictree.errors import VerdictreeError


class ServingError(VerdictreeError):
    """Any error that serving raises on purpose."""


class TritonNotFound(ServingError):
    """No usable Triton installation on this machine."""


class PortInUse(ServingError):
    """A port that was asked for is taken."""


class ServerFailed(ServingError):
    """The server ended before, or while, it was needed."""


class NotReadyInTime(ServingError):
    """The server runs, but it or its models did not become ready in time."""


class Stopped(ServingError):
    """The server was told to stop before it was ready."""


class MachineUnfit(ServingError):
    """This machine, as it is set up, lacks something that every server needs."""


class InvalidModelConfig(ServingError):
    """A `config.pbtxt` that the onnxruntime stand-in cannot honour, or that its graph contradicts."""


class InferenceFailed(ServingError):
    """A request that the ONNX graph cannot answer."""


class InvalidInput(InferenceFailed):
    """A request that the ONNX graph must not be asked."""


class Overloaded(InferenceFailed):
    """A request that would wait too long for its turn."""
