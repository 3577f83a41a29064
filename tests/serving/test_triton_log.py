"""The one line of Triton's log that explains a failure."""

import pytest

from verdictree_serving.server.triton_log import first_error

CUDA = 'E1123 22:33:54.956036 3456 server.cc:241] "CudaDriverHelper has not been initialized."\n'


@pytest.mark.parametrize(
    "log, expected",
    [
        (
            CUDA
            + 'E1123 22:34:34.339013 1 backend_model.cc:692] "ERROR: Failed to create instance: InvalidModelConfig: '
            + 'unknown parameter foo\\n\\nAt:\\n  /a/model.py(6): initialize\\n"\n'
            + "E1123 22:34:34.339152 1 model_lifecycle.cc:642] \"failed to load 'step' version 1\"\n",
            "InvalidModelConfig: unknown parameter foo",
        ),
        (CUDA + "error: creating server: Internal - failed to stat file nope\n", None),
        ("tritonserver: unrecognized option '--nonsense=1'\nUsage: tritonserver [options]\n", None),
        (CUDA + "Error: Failed to initialize NVML\n", "its log holds no error"),
        ("", "its log holds no error"),
    ],
)
def test_first_error(log: str, expected: str | None) -> None:
    """The user gets a wall of tables, or the CUDA complaint of every CPU machine, instead of the cause."""
    message = first_error(log)
    assert "\n" not in message
    if expected is None:
        assert any(cause in message for cause in ("failed to stat file nope", "unrecognized option"))
    else:
        assert message == expected
