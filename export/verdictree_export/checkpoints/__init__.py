"""Checkpoints as they lie around: looked at before they are loaded, loaded whole or refused in one line.

source.py       what was given ─► a folder, a hub id or a GGUF file
    ↓           (impostors.py: a Git LFS pointer, a web page or nothing where a file should be)
folder.py       are all its files here, whole, and of the kinds that are read?
    ↓           (weight_files.py: the same of the files with weights, from their headers)
declared.py     what its configuration says: architecture, own code, the text model of several, quantization.py
    ↓           (gguf_settings.py: what transformers leaves out of a GGUF file)
loading.py      ─► configuration, tokenizer, model; complete_weights.py: every weight from the file, and none left over
    ↓
adapter.py      a LoRA adapter, merged

library_errors.py says in one line what transformers and torch raise, and keeps them quiet. Everything here is refused
by an UnsupportedGuard that says what was expected, what was got, and the fix.
"""
