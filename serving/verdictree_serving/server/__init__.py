"""One Triton server: found, started, asked, ended.

preflight.py ─► locate.py ─► launcher.py ─► process.py ─► tritonserver and its model processes
is the machine  which        addresses,     owns all that
fit?            Triton?      key, TLS       must go with it

ports.py tls.py command_line.py exec_with_parent.py    what it is started with
private_http.py vital_signs.py triton_log.py           how it is asked: by its own HTTP, of the kernel, in its log
drain.py                                               its end, which loses nothing
"""
