"""The services of api/guest.proto: protobuf messages on one side, vminitd's own values on the other.

Nothing is decided here. Errors are ttrpc statuses already (`vminitd.errors`).
"""
