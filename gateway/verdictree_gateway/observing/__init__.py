"""What an operator sees of the requests: numbers, lines, spans. A caller's text is in none but the audit log, redacted.

watch.py      metrics of the domain, and what each answer and refusal is counted as
drift.py      how far the live scores have moved from the release's first ones
audit.py      a line a verdict in files, for who must be able to look back
redaction.py  what of a text may stand there
tracing.py    OpenTelemetry's spans, where an endpoint is given
log_lines.py  the process's own log, as JSON
caller.py     whose request it is: what all of these name
"""
