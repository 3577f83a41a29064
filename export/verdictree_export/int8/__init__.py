"""An fp32 graph ─► an int8 one, if that judges as the fp32 one does.

conversion.py    fit on some conversations, judge on others, fall back layer by layer, or refuse
    │
    ├─ preparation.py   from file to file: passes, and what flows into each linear layer (activations.py)
    ├─ passes.py        the lists of what is done, in order
    │   ├─ rotation.py      a basis without outlier channels       ┐
    │   ├─ smoothing.py     outliers from activations to weights   │ the graph computes the same function
    │   ├─ deferred_dequantization.py  per-token scales after the product     ┘
    │   └─ quantize.py      weights per channel, activations per token: integer_operators.py
    │                       rounding.py: to the layer's output
    └─ quality_gate.py  the gate: |ΔP(unsafe)|, AUC
"""
