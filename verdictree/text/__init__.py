"""Text as strangers write it: shown so that it does no harm, read so that an error can point at its line.

    visible.py      anything that is shown or quoted: no control characters, no hidden ones, of a bounded length
    pages.py        HTML pages, on which everything is escaped
    yaml_lines.py   policies and gates: YAML whose values remember their lines

Uses nothing of ours; every other room may use it.
"""
