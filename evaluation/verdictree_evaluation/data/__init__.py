"""Labelled rows in, arrays out.

csv_rows.py, formats.py ─► datasets.py ─► scoring (above) ─► predictions.py ─► arrays.py
one line → one Row         rows, problems                    a file to go on    (rows, categories)
                                                             from
"""
