"""The wire interfaces: .proto files written by us, and the Python made of them.

    types, task_types, task, events, events_service, bootstrap, runc_options   containerd's (field numbers are facts)
    guest                                                                      between the shim and vminitd
    containerd                                                                 what `qemubox commit` says to containerd
    template, frames                                                           the same, by hand: no message fits

`*_pb2.py` and `*_pb2.pyi` come from protoc, `*_ttrpc.py` from ttrpc/plugin.py; `python -m api.generate` makes all
of them, and a test compares. They are checked in so that neither an installation nor the guest needs protoc.
"""
