"""The export, step by step: checkpoint → prompts, tree → graph → ONNX → parity → release."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from verdictree import families
from verdictree.errors import UnsupportedGuard
from verdictree.policy import Policy, check_distinct
from verdictree.releases import calibration as calibrations
from verdictree.releases import writer as release_writer
from verdictree.releases.calibration import Calibration
from verdictree.releases.draft import Draft
from verdictree.releases.early_exit import EarlyExit
from verdictree.releases.proofs import Parity
from verdictree.releases.release import (
    GRAPH_MODEL,
    MAX_OFF_GRAMMAR,
    TOKENIZER_FILE,
    TOKENIZER_MODEL,
    WEIGHTLESS_FOLDER,
    Release,
)
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export import golden, half, inspection, parity
from verdictree_export.defaults import FAMILY, MAX_TOKENS, PRECISION
from verdictree_export.early_exit.layer_choice import NUM_CONVERSATIONS
from verdictree_export.early_exit.request import ExitRequest
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.exit_probe import ExitProbe
from verdictree_export.graph.guard_graph import GuardGraph
from verdictree_export.graph.prefix_cache import prefill_prefixes
from verdictree_export.int8 import conversion as int8
from verdictree_export.int8.conversion import Example
from verdictree_export.onnx_file import onnx_model
from verdictree_export.prompts import checkpoint as checkpoints
from verdictree_export.prompts import compilation
from verdictree_export.prompts.checkpoint import Checkpoint
from verdictree_export.tolerances import PARITY, PRECISIONS

_TEMPLATE = Path(__file__).parent / "model_repository"


_NOT_MEASURED = Parity(0.0, 0.0, 0, 0)

# Called at the begin of a step with its name and its number of parts; what it returns is called with each part done.
Progress = Callable[[str, int], Callable[[int], None]]


def _silent(_step: str, _parts: int) -> Callable[[int], None]:
    return lambda _done: None


def export_release(
    source: str,
    family_name: str,
    policies: Sequence[Policy],
    model_repository: Path,
    *,
    number: int | None = None,
    adapter: Path | None = None,
    calibration: Path | None = None,
    precision: str = PRECISION,
    exploration: Exploration | None = None,
    max_tokens: int = MAX_TOKENS,
    evaluation: Sequence[Example] = (),
    max_change: float | None = None,
    max_off_grammar: float = MAX_OFF_GRAMMAR,
    early_exit: ExitRequest | None = None,
    progress: Progress = _silent,
) -> Release:
    """Export a guard as release `number` (None: the next free one) of a model repository.

    `source` is a checkpoint folder, a hub id, a GGUF file or "embedded"; the first of `policies` is the default;
    `max_tokens` bounds a conversation's tokens; `evaluation` is what int8 is fitted to, and any precision but fp32
    judged by, `max_change` what the 99th percentile of |ΔP(unsafe)| may be there (None: the precision's own limit);
    `calibration` is a file that was fitted on another export of this very guard. An answer with more than
    `max_off_grammar` off the grammar is undecided; a guard that never answers a verdict is refused, unless it is 1.
    With `early_exit` plainly safe conversations leave the graph early.
    The repository's first release is pinned; a later one is only written.
    Raises UnsupportedGuard or AmbiguousGrammar where the guard cannot be exported faithfully, InvalidRelease for a
    calibration that is another guard's, ReleaseTaken for a number that is taken, and then leaves the repository as it
    was.
    """
    _check_precision(precision, evaluation, max_change)
    policies = tuple(policies)
    check_distinct(policies)
    exploration = exploration or Exploration()
    if family_name != FAMILY:
        families.family(family_name)  # a wrong name is told before the checkpoint is loaded
    load_done = progress("load the checkpoint", 1)
    guard = checkpoints.load(source, adapter)
    load_done(1)
    family = inspection.resolve(guard, family_name)
    form, prompts, tree, tokenizer = compilation.compile_prompts(guard, family, policies)
    release = Release(
        number=0,  # the draft's
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint=guard.name,
        adapter=_named(adapter) if adapter else None,
        family=family.name,
        precision=precision,
        policies=policies,
        conversation=form,
        prompts=prompts,
        max_tokens=min(max_tokens, compilation.room(guard, prompts, tree, exploration)),
        tree=tree,
        exploration=exploration,
        parity=_NOT_MEASURED,
        files={},
        max_off_grammar=max_off_grammar,
    )
    if early_exit is not None:
        early_exit.check(release, len(guard.model.get_decoder().layers))
    fitted = calibrations.read_for(calibration, release) if calibration else {}
    with release_writer.new(model_repository, "export", number, template=_TEMPLATE) as draft:
        release = msgspec.structs.replace(release, number=draft.number)
        return draft.commit(
            _write(guard, tokenizer, release, draft, fitted, evaluation, max_change, early_exit, progress), fitted
        )


def _check_precision(precision: str, evaluation: Sequence[Example], max_change: float | None) -> None:
    if precision not in PRECISIONS:
        raise UnsupportedGuard(f"expected a precision among {', '.join(PRECISIONS)}, got {precision!r}")
    if PRECISIONS[precision].is_quantized:
        int8.check(evaluation)
    elif not PRECISIONS[precision].is_converted and (evaluation or max_change is not None):
        raise UnsupportedGuard(
            f"expected --evaluation and --max-change for a precision that is converted to, got them for {precision}; "
            "leave them out, or give --precision"
        )


def _write(
    guard: Checkpoint,
    tokenizer: Tokenizer,
    release: Release,
    draft: Draft,
    fitted: Mapping[str, Calibration],
    evaluation: Sequence[Example],
    max_change: float | None,
    early_exit: ExitRequest | None,
    progress: Progress,
) -> Release:
    """Write the release's files; return it with what was measured of them."""
    tokenizer.save(str(draft.folder(TOKENIZER_MODEL) / TOKENIZER_FILE))
    checkpoints.save_weightless(guard, draft.folder(GRAPH_MODEL) / WEIGHTLESS_FOLDER)
    key_values, layer = prefill_prefixes(guard.model, release.prompts), None
    compiled = partial(CompiledPolicies, release.prompts, release.tree, release.exploration, key_values)
    policies = compiled()
    if early_exit is not None:
        layer = early_exit.layer
        if layer is None:
            done = progress("choose the layer to leave after", NUM_CONVERSATIONS)
            layer = early_exit.best_layer(GuardGraph(guard.model, policies), release, tokenizer, fitted, done)
        release = msgspec.structs.replace(release, early_exit=EarlyExit(layer))
        policies = compiled(ExitProbe.blank(len(release.prompts), guard.model.get_input_embeddings().weight.shape[1]))
    graph_done = progress("write the ONNX graph", 1)
    graph = onnx_model.write(GuardGraph(guard.model, policies, layer), draft.folder(GRAPH_MODEL))
    graph_done(1)
    release = msgspec.structs.replace(release, parity=_parity(guard, release, graph, tokenizer, progress))
    precision = PRECISIONS[release.precision]
    if precision.is_converted:
        converted = progress(f"convert to {release.precision}, and compare with fp32", 1)
        limit = precision.max_change if max_change is None else max_change
        convert = int8.convert if precision.is_quantized else half.convert
        quality = convert(graph, release, tokenizer, evaluation, limit)
        release = msgspec.structs.replace(release, quantization_quality=quality)
        converted(1)
    onnx_model.finish(graph)
    if early_exit is not None and layer is not None:
        done = progress("fit the early exit", len(early_exit.conversations))
        found = early_exit.fitted(graph, release, layer, tokenizer, fitted, done)
        onnx_model.set_policies(graph, compiled(found.probe))
        release = msgspec.structs.replace(release, early_exit=found.early_exit)
    return golden.with_golden(release, graph, tokenizer, guard)


def _named(adapter: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(adapter.glob("adapter_*")):  # its configuration and its weights
        digest.update(path.read_bytes())
    return f"{adapter.name} sha256:{digest.hexdigest()}"


def _parity(guard: Checkpoint, release: Release, graph: Path, tokenizer: Tokenizer, progress: Progress) -> Parity:
    prompts, tree, exploration = release.prompts, release.tree, release.exploration
    asked = [
        (i, parity.example(prompt, release.conversation, tokenizer, release.max_tokens))
        for i, prompt in enumerate(prompts)
    ]
    done = progress("compare the graph with the checkpoint", parity.num_paths(tree, exploration, prompts, asked))
    return parity.measure(graph, guard.model, prompts, tree, exploration, asked, PARITY, done)
