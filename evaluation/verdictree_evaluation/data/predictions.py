"""What the guard said of each row: written line by line as it comes, so that a run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from verdictree.verdict import Verdict
from verdictree_evaluation.data.formats import Row
from verdictree_evaluation.errors import BadPredictions


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One scored row, without its text.

    `release` names what scored it and `digest` the conversation that was scored: together with `id` they are the key.
    `label_logits` are the categories' logits at the forced prefix, None where the guard does not show them (a server),
    or had no need to compute them for so small a P(unsafe).
    `error` says why there is no verdict; such a row is asked again by the next run.
    """

    id: str
    digest: str
    release: str
    verdict: Verdict | None = None
    label_logits: tuple[float, ...] | None = None
    error: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes another scoring of the row superfluous."""
        return self.id, self.digest, self.release


class PredictionStore:
    """An append-only file of predictions; a line that a killed run left unfinished is cut off."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it; BadPredictions, naming the line, for a line that is no prediction."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self._found: dict[tuple[str, str, str], Prediction] = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                prediction = _decoder.decode(line)
            except msgspec.DecodeError as exc:
                raise BadPredictions(
                    f"{path}:{number}: expected a prediction, got something else ({exc}); remove the line or the file"
                ) from exc
            self._keep(prediction)
        self._file = path.open("ab")
        self._file.truncate(len(whole))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, prediction: Prediction) -> None:
        """Keep a prediction; it is on disk when this returns, unless the machine itself stops."""
        self._file.write(msgspec.json.encode(prediction) + b"\n")
        self._file.flush()
        self._keep(prediction)

    def find(self, row: Row, release: str) -> Prediction | None:
        """The prediction of this very conversation by this release, or None."""
        return self._found.get((row.id, row.digest, release))

    def pending(self, rows: Iterable[Row], release: str) -> list[Row]:
        """The rows that have no verdict yet."""
        return [row for row in rows if (known := self.find(row, release)) is None or known.verdict is None]

    def _keep(self, prediction: Prediction) -> None:
        self._found[prediction.key] = prediction


_decoder = msgspec.json.Decoder(Prediction)
