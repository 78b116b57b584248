"""Messages that say what they are: google.protobuf.Any as containerd reads it."""

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message


def typed(message: Message) -> AnyMessage:
    """`message` with its bare name as the type URL (https://github.com/containerd/typeurl).

    Any.Pack would put type.googleapis.com/ in front, which not all of containerd's clients take.
    """
    return AnyMessage(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())
