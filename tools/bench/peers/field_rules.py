"""What the contract's field rules cost on a call: compiled by the chassis, and as protovalidate's (ADR 0003).

The second contract is the first one's messages with each rule written as protovalidate's of the same meaning, so that
both refuse the same messages; what each costs to have is measured as well.
"""

from __future__ import annotations

import subprocess
import sys
import timeit
from collections.abc import Callable
from statistics import median
from typing import Any

from chassis.errors import ServiceError
from chassis.grpc.rules import compile_rules
from contracts.common.v1 import options_pb2
from contracts.order.v1 import order_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from protovalidate import ValidationError, Validator
from protovalidate._gen.buf.validate import validate_pb

_CALLS = 20_000
_ROUNDS = 7
_ID = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21"
# The number of the extension (buf.validate.field) in google.protobuf.FieldOptions, as a tag of wire type 2.
_FIELD_EXTENSION = 1159 << 3 | 2
_HAVING = """
import psutil, time
own = psutil.Process()
before, began = own.memory_info().rss, time.process_time()
{statement}
print((time.process_time() - began) * 1e3, (own.memory_info().rss - before) / 2**20)
"""
_PREPARED = "from google.protobuf import descriptor_pool; import re, contracts.order.v1.order_pb2, chassis.errors"


def protovalidate_contract() -> Callable[[str], type[Any]]:
    """The messages of order/v1/order.proto that have rules, with protovalidate's: their classes by name."""
    pool = descriptor_pool.DescriptorPool()
    for source in (descriptor_pb2, *_timestamps()):
        pool.AddSerializedFile(source.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(validate_pb.desc().proto.to_binary())
    rules_class = message_factory.GetMessageClass(pool.FindMessageTypeByName("buf.validate.FieldRules"))
    file = descriptor_pb2.FileDescriptorProto(
        name="peers/order.proto", package="peers", syntax="proto3", dependency=["buf/validate/validate.proto"]
    )
    for own in (order_pb2.OrderLine, order_pb2.GetOrderRequest, order_pb2.CreateOrderRequest):
        message = file.message_type.add()
        own.DESCRIPTOR.CopyToProto(message)
        for field in message.field:
            rules = field.options.Extensions[options_pb2.rules]
            field.ClearField("options")
            if field.type == field.TYPE_MESSAGE:
                field.type_name = field.type_name.replace(".order.v1.", ".peers.")
            content = _translated(rules_class(), rules, field).SerializeToString()
            field.options.MergeFromString(_varint(_FIELD_EXTENSION) + _varint(len(content)) + content)
    pool.AddSerializedFile(file.SerializeToString())
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"peers.{name}"))


def _translated(made: Any, rules: options_pb2.FieldRules, field: descriptor_pb2.FieldDescriptorProto) -> Any:
    made.required = rules.required
    target = made
    if field.label == field.LABEL_REPEATED:
        made.repeated.min_items = rules.min_items
        if rules.max_items:
            made.repeated.max_items = rules.max_items
        target = made.repeated.items
    if field.type == field.TYPE_STRING:
        if rules.format == options_pb2.FORMAT_UUID:
            target.string.uuid = True
        if rules.pattern:
            target.string.pattern = f"^{rules.pattern}$"
        if rules.max_length:
            target.string.max_len = rules.max_length
        if rules.min_length:
            target.string.min_len = rules.min_length
    if field.type == field.TYPE_INT32:
        target.int32.gte, target.int32.lte = rules.minimum, rules.maximum
    return made


def _timestamps() -> tuple[Any, ...]:
    from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2

    return duration_pb2, field_mask_pb2, timestamp_pb2


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*made, number))


def _examples(classes: Callable[[str], type[Any]]) -> dict[str, Any]:
    line = classes("OrderLine")(product_id=_ID, quantity=1)
    return {
        "GetOrderRequest": classes("GetOrderRequest")(id=_ID),
        "CreateOrderRequest": classes("CreateOrderRequest")(idempotency_key="a" * 20, items=[line] * 3),
    }


def _having(statement: str) -> tuple[float, float]:
    """Milliseconds of CPU and MiB that it costs a process that has loaded what every service loads."""
    code = f"{_PREPARED}\n{_HAVING.format(statement=statement)}"
    output = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout.split()
    return float(output[0]), float(output[1])


def main() -> None:
    """Print a table."""
    own = _examples(lambda name: getattr(order_pb2, name))
    theirs = _examples(protovalidate_contract())
    validator = Validator()
    for name, message in own.items():
        compiled = compile_rules(message.DESCRIPTOR)
        if compiled is None:
            raise AssertionError(f"{name} has no rules")
        _refuse_alike(compiled, validator, message, theirs[name])
        other = theirs[name]
        ours, protovalidate = _interleaved(lambda: compiled(message), lambda: validator.validate(other))  # noqa: B023
        print(f"{name:<20} chassis {ours:5.1f} us   protovalidate {protovalidate:5.1f} us")
    for label, statement in (("chassis", "import chassis.grpc.rules"), ("protovalidate", "import protovalidate")):
        runs = [_having(statement) for _ in range(_ROUNDS)]
        milliseconds, mebibytes = (median(run[index] for run in runs) for index in (0, 1))
        print(f"to have {label:<13} {milliseconds:5.0f} ms {mebibytes:5.1f} MiB")


def _refuse_alike(compiled: Callable[[Any], None], validator: Validator, own: Any, other: Any) -> None:
    """Neither is fast by checking nothing.

    Raises:
        AssertionError: one lets pass what it must refuse.
    """
    for validate, valid, refusal in ((compiled, own, ServiceError), (validator.validate, other, ValidationError)):
        validate(valid)
        bad = type(valid)()
        try:
            validate(bad)
        except refusal:
            continue
        raise AssertionError(f"{validate} lets an empty {type(valid).__name__} pass")


def _interleaved(*measured: Callable[[], None]) -> list[float]:
    """The median of each, in microseconds, one after the other in every round."""
    rounds = [[timeit.timeit(one, number=_CALLS) / _CALLS * 1e6 for one in measured] for _ in range(_ROUNDS)]
    return [median(column) for column in zip(*rounds, strict=True)]


if __name__ == "__main__":
    main()
