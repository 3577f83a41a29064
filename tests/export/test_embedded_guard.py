"""The embedded guard, exported by its name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from verdictree.releases import calibration
from verdictree_cli import main
from verdictree_export import embedded_guard, exporter

OWN = (embedded_guard.ADAPTER, embedded_guard.CALIBRATION)


@pytest.fixture
def export(monkeypatch):
    """Runs `verdictree export` up to the export itself; returns the adapter and the calibration that it was given."""

    def run(*arguments: str) -> tuple[Path | None, Path | None]:
        given = SimpleNamespace()

        def stop(*_: object, **options: object) -> None:
            given.__dict__.update(options)
            raise KeyboardInterrupt

        monkeypatch.setattr(exporter, "export_release", stop)
        CliRunner().invoke(main, ["export", *arguments])
        return given.adapter, given.calibration

    return run


def test_comes_with_its_own_adapter_and_calibration(export):
    """Without its adapter the checkpoint is no guard, and who has no checkout does not find it."""
    assert export("embedded", "--policy", "embedded") == OWN
    assert all(path.exists() for path in OWN)
    assert calibration.read(embedded_guard.CALIBRATION).keys() == {"embedded"}


@pytest.mark.parametrize(
    "options",
    [
        ("--policy", "children"),
        ("--policy", "embedded", "--policy", "children"),
        ("--policy", "embedded", "--precision", "fp16"),
        ("--policy", "embedded", "--epsilon", "0.1"),
    ],
    ids=" ".join,
)
def test_another_guard_is_not_calibrated(options, export):
    """Thresholds that were fitted on other scores flag by chance; and a refusal would take the plain command away."""
    assert export("embedded", *options) == (embedded_guard.ADAPTER, None)


def test_what_is_given_comes_first(export, tmp_path):
    """An option that is silently replaced by a default exports another guard than the one that was asked for."""
    assert export("embedded", "--policy", "embedded", "--adapter", str(tmp_path)) == (tmp_path, None)
    own = tmp_path / "calibration.json"
    own.touch()
    assert export("embedded", "--policy", "embedded", "--calibration", str(own)) == (embedded_guard.ADAPTER, own)
    assert export(str(tmp_path), "--policy", "embedded") == (None, None)
