"""Spans of the task calls, for OpenTelemetry, where the environment asks for them (docs/observability.md).

    settings.py     whether the environment asks, and for what
    traceparent.py  the name of a span, as it travels (W3C Trace Context)
    span.py         spans that are under way; the current one is the calling task's
    phases.py       a Create is parted into its phases, those of the boot timeline
    server.py       each call of containerd's is a span, its parent the one that containerd names
    guest.py        each call to the guest is a span below that, and so is what the guest says of its own time
    tracer.py       what begins a call's spans, and hands them over once it has ended
    export.py       a thread that sends them
    otel.py         all that knows OpenTelemetry, and imports it; imported by that thread alone

A call's spans are plain values until it has ended. So they cost a call next to nothing, and
nothing of OpenTelemetry, which takes longer to import than a container takes to start, is
there before the first call has been answered, nor without being asked for, ever.
"""
