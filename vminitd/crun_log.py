"""What crun says when it fails: the errors in its log. Pure.

The log is plain text, a message a line. crun's other format, JSON, would also be what a container sees on its own
standard error when its program cannot be executed after all ("Exec format error").
"""


def error_text(log: bytes) -> str:
    """The messages in the log as one line, each of them once; empty if there is none."""
    lines = (" ".join(line.split()) for line in log.decode(errors="replace").splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if line))
