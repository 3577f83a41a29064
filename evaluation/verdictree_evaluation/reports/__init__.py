"""Numbers in, files out: outputs.py writes them all; report.py the page, plots.py its figures, examples.py its rows."""
