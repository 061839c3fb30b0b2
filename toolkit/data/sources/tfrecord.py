"""TFRecord files of ``tf.train.Example``, read without TensorFlow."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO


def read(file: BinaryIO, start: int, wanted: object) -> Iterator[dict[str, Any]]:
    """Yield the fields of records, each of which is a length, its checksum, the message and its checksum.

    Args:
        file: to read.
        start: number of the first record.
        wanted: ignored, since the fields of a record are not stored apart.

    Raises:
        EOFError, ValueError: it is damaged, or holds something else.
    """
    from tensorboardX.crc32c import crc32c

    for i, header in enumerate(iter(lambda: file.read(12), b"")):
        if not i and header[:2] == b"\x1f\x8b":
            raise ValueError("compressed by gzip; unpack it")
        length, checksum = struct.unpack("<QI", header)
        value = crc32c(header[:8])
        if checksum != (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF:
            raise ValueError("the checksum of its length differs")
        if i < start:
            file.seek(length + 4, 1)
            continue
        message = file.read(length)
        if len(message) < length or len(file.read(4)) < 4:
            raise EOFError("the file ends early")
        yield _example(message)


def _example(message: bytes) -> dict[str, Any]:
    from google.protobuf.message import DecodeError

    parsed = example_class()()
    try:
        parsed.ParseFromString(message)
    except DecodeError as error:
        raise ValueError("not a tf.train.Example") from error
    values = {}
    for name, feature in parsed.features.feature.items():
        kind = feature.WhichOneof("kind")
        listed = list(getattr(feature, kind).value) if kind else []
        if len(listed) == 1:
            values[name] = listed[0]
        elif listed:
            values[name] = listed
    return values


@functools.cache
def example_class() -> Any:
    """Build the message class ``tf.train.Example``, so that reading it needs no TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="toolkit/example.proto", package="toolkit", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, str], parent: Any = file.message_type) -> Any:
        proto = parent.add(name=name)
        for key, number, kind, type_name in fields:
            label = kinds.LABEL_REPEATED if key in ("value", "feature") else kinds.LABEL_OPTIONAL
            label = kinds.LABEL_OPTIONAL if type_name == ".toolkit.Feature" else label
            proto.field.add(name=key, number=number, type=kind, label=label, type_name=type_name or None)
        return proto

    lists = (("BytesList", kinds.TYPE_BYTES), ("FloatList", kinds.TYPE_FLOAT), ("Int64List", kinds.TYPE_INT64))
    for name, kind in lists:
        message(name, ("value", 1, kind, ""))
    kinds_of_list = [(name.lower(), i, kinds.TYPE_MESSAGE, f".toolkit.{name}") for i, (name, _) in enumerate(lists, 1)]
    feature = message("Feature", *kinds_of_list)
    feature.oneof_decl.add(name="kind")
    for member in feature.field:
        member.oneof_index = 0
    all_features = message("Features", ("feature", 1, kinds.TYPE_MESSAGE, ".toolkit.Features.FeatureEntry"))
    entry = (("key", 1, kinds.TYPE_STRING, ""), ("value", 2, kinds.TYPE_MESSAGE, ".toolkit.Feature"))
    message("FeatureEntry", *entry, parent=all_features.nested_type).options.map_entry = True
    message("Example", ("features", 1, kinds.TYPE_MESSAGE, ".toolkit.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("toolkit.Example"))
