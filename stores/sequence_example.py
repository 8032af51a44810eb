"""`tf.train.SequenceExample` without TensorFlow, which costs seconds and half a gigabyte in every process.

The messages are declared here in a descriptor pool of their own, so that TensorFlow may be loaded beside them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "perfnet"
MAX_BYTES = 2**31 - 1
"""Protocol buffers hold no more."""


def _field(message: Any, name: str, number: int, kind: int | str, *, repeated: bool = False) -> Any:
    field = message.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if isinstance(kind, str):
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = kind
    return field


def _map(message: Any, name: str, number: int, value: str) -> None:
    """map<string, value>: protocol buffers write it as a repeated message of key and value."""
    entry = message.nested_type.add(name="".join(p.title() for p in name.split("_")) + "Entry")
    entry.options.map_entry = True
    _field(entry, "key", 1, _Field.TYPE_STRING)
    _field(entry, "value", 2, value)
    _field(message, name, number, f"{message.name}.{entry.name}", repeated=True)


def _declare() -> Any:
    """The messages of tensorflow/core/example/{feature,example}.proto; returns the class SequenceExample."""
    file = descriptor_pb2.FileDescriptorProto(name="perfnet.proto", package=_PACKAGE, syntax="proto3")
    lists = {"bytes": _Field.TYPE_BYTES, "float": _Field.TYPE_FLOAT, "int64": _Field.TYPE_INT64}
    for name, kind in lists.items():
        _field(file.message_type.add(name=f"{name.title()}List"), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(lists, 1):
        _field(feature, f"{name}_list", number, f"{name.title()}List").oneof_index = 0
    _field(file.message_type.add(name="FeatureList"), "feature", 1, "Feature", repeated=True)
    _map(file.message_type.add(name="Features"), "feature", 1, "Feature")
    _map(file.message_type.add(name="FeatureLists"), "feature_list", 1, "FeatureList")
    example = file.message_type.add(name="SequenceExample")
    _field(example, "context", 1, "Features")
    _field(example, "feature_lists", 2, "FeatureLists")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.SequenceExample"))


_Message = _declare()


class SequenceExample:
    """A message that is filled key by key: `context` holds one value, or list of values, a key; `step` one a frame.

    Values are bytes, int64 or float32; a float stays bit for bit what it is.
    """

    def __init__(self) -> None:
        self._message = _Message()

    @classmethod
    def parse(cls, content: bytes) -> "SequenceExample":
        """Raises google.protobuf.message.DecodeError where the bytes are no such message."""
        example = cls()
        example._message = _Message.FromString(content)
        return example

    def serialise(self) -> bytes:
        """The same content gives the same bytes: maps are sorted by key."""
        return bytes(self._message.SerializeToString(deterministic=True))

    def context_bytes(self, key: str, *values: bytes | str) -> None:
        self._context(key).bytes_list.value.extend(map(_encoded, values))

    def context_ints(self, key: str, *values: int) -> None:
        self._context(key).int64_list.value.extend(values)

    def context_floats(self, key: str, *values: float) -> None:
        self._context(key).float_list.value.extend(values)

    def step_bytes(self, key: str, *values: bytes) -> None:
        """Adds one time step to a feature list."""
        self._step(key).bytes_list.value.extend(values)

    def step_ints(self, key: str, *values: int) -> None:
        self._step(key).int64_list.value.extend(values)

    def step_floats(self, key: str, values: Iterable[float]) -> None:
        found = self._step(key).float_list
        found.SetInParent()  # nobody is an empty list of floats, not no list
        found.value.extend(values)

    def one(self, key: str) -> str:
        """The text under a key of the context; "" where there is none."""
        values = self._message.context.feature[key].bytes_list.value
        return values[0].decode() if values else ""

    def length(self, key: str) -> int:
        """Time steps of a feature list; 0 where there is none."""
        lists = self._message.feature_lists.feature_list
        return len(lists[key].feature) if key in lists else 0

    def steps(self, key: str, start: int, stop: int) -> Iterator[Any]:
        """The values of the time steps [start, stop) of a feature list."""
        features = self._message.feature_lists.feature_list[key].feature
        for index in range(start, stop):
            feature = features[index]
            yield getattr(feature, feature.WhichOneof("kind")).value

    def _context(self, key: str) -> Any:
        return self._message.context.feature[key]

    def _step(self, key: str) -> Any:
        return self._message.feature_lists.feature_list[key].feature.add()


def _encoded(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value
