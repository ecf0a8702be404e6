"""An ONNX file looked at before onnxruntime loads it.

ONNX is data: a graph of operators that compute, and numbers. What is more than that in what the
standard allows is refused, so that nothing of a file reaches onnxruntime but

- operators of the standard itself, without graphs inside of them and functions of the file's own,
- tensors that are in the file, as large as they say; none in other files, wherever these lie,
- one input and one output.

Onnxruntime is given what was read here, written anew, so that it finds no more in it.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from genselfdiff.errors import ModelError
from genselfdiff.models.model_info import EXTRA_FILE
from genselfdiff.text import counted, shown

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, TensorProto

LARGEST_TEXT = 2 * 2**20
"""Bytes of the metadata that is read."""

_LEAST_OPSET = 7
"""What onnxruntime says that it runs."""

_STANDARD = ("", "ai.onnx")


def checked_model(content: bytes) -> tuple[bytes, bytes]:
    """The model as onnxruntime is given it, and its ``gsd.json``.

    Raises:
        ModelError: it is damaged, none of ours, of another version, or more than data.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError) as error:
        raise ModelError("not an ONNX model, or damaged: gsd export writes model files") from error
    model.DiscardUnknownFields()  # newer readers could know them
    _check_versions(model, onnx.defs.onnx_opset_version())
    metadata = _metadata(model)
    if model.functions or model.training_info:
        raise ModelError("brings functions of its own, which no model of ours has")
    graph = model.graph
    if graph.sparse_initializer:
        raise ModelError("has sparse tensors, which no model of ours has")
    for tensor in graph.initializer:
        _check_tensor(tensor, onnx.TensorProto)
    for node in graph.node:
        if node.domain not in _STANDARD:
            raise ModelError(
                f"uses {_named(node.domain)}, operators that are not of the ONNX standard"
            )
        for attribute in node.attribute:
            _check_attribute(attribute, node.op_type, onnx)
    _check_ends(model)
    # Onnxruntime can be told to take settings from there.
    del model.metadata_props[:]
    return model.SerializeToString(), metadata


def _check_versions(model: "ModelProto", newest: int) -> None:
    versions: dict[str, int] = {}
    for opset in model.opset_import:
        versions[opset.domain] = opset.version
        if opset.domain not in _STANDARD:
            raise ModelError(
                f"asks for {_named(opset.domain)}, operators that are not of the ONNX standard"
            )
    if len(versions) != 1 or len(model.opset_import) != 1:
        raise ModelError("does not tell one version (opset) of the ONNX standard")
    (opset_version,) = versions.values()
    if not _LEAST_OPSET <= opset_version <= newest:
        raise ModelError(
            f"is written in opset {opset_version}, but {_LEAST_OPSET} to {newest} are read: export"
            " it again, or update onnx and onnxruntime"
        )


def _metadata(model: "ModelProto") -> bytes:
    found = [prop.value for prop in model.metadata_props if prop.key == EXTRA_FILE]
    if len(found) != 1:
        raise ModelError(
            f"an ONNX model {'without' if not found else 'with more than one'} {EXTRA_FILE}: gsd"
            " export writes model files"
        )
    metadata = _bytes(found[0])
    if len(metadata) > LARGEST_TEXT:
        raise ModelError(f"its {EXTRA_FILE} has {len(metadata):,} bytes: no model has so many")
    return metadata


def _check_attribute(attribute: "AttributeProto", operator: str, onnx: Any) -> None:
    kinds = onnx.AttributeProto
    if attribute.HasField("g") or attribute.graphs:
        raise ModelError(f"has a graph inside of {_named(operator)}, which no model of ours has")
    if attribute.type == kinds.TENSOR:
        _check_tensor(attribute.t, onnx.TensorProto)
    elif attribute.HasField("t") or attribute.tensors:
        raise ModelError(f"is damaged: {_named(operator)} has tensors that it does not tell of")
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors or attribute.ref_attr_name:
        raise ModelError(f"has parts in {_named(operator)} that no model of ours has")


def _check_tensor(tensor: "TensorProto", kinds: Any) -> None:
    """Raise unless all elements of a tensor are in it."""
    if tensor.data_location != kinds.DEFAULT or tensor.external_data:
        raise ModelError(
            f"keeps {_named(tensor.name)} in another file, which is not read: save it with all of"
            " its tensors inside"
        )
    bits = {
        **dict.fromkeys((kinds.BOOL, kinds.INT8, kinds.UINT8), 8),
        **dict.fromkeys((kinds.FLOAT16, kinds.BFLOAT16, kinds.INT16, kinds.UINT16), 16),
        **dict.fromkeys((kinds.FLOAT, kinds.INT32, kinds.UINT32), 32),
        **dict.fromkeys((kinds.DOUBLE, kinds.INT64, kinds.UINT64), 64),
    }.get(tensor.data_type)
    if bits is None or tensor.HasField("segment"):
        raise ModelError(f"has {_named(tensor.name)} in a type that no model of ours has")
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"is damaged: {_named(tensor.name)} has a negative size")
    count, listed = math.prod(tensor.dims), max(map(len, _lists(tensor)))
    is_raw = tensor.HasField("raw_data")
    fits = 8 * len(tensor.raw_data) == bits * count and not listed if is_raw else listed == count
    if not fits:
        raise ModelError(f"is damaged: {_named(tensor.name)} is not as large as it says")


def _lists(tensor: "TensorProto") -> Iterable[Any]:
    return (
        *(tensor.float_data, tensor.int32_data, tensor.int64_data),
        *(tensor.double_data, tensor.uint64_data, tensor.string_data),
    )


def _check_ends(model: "ModelProto") -> None:
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"takes {counted(len(inputs), 'tensor')} and gives {len(graph.output)}: a model takes"
            " images and gives probabilities"
        )


def _bytes(text: str | bytes) -> bytes:
    """Protobuf gives a text that is no UTF-8 as bytes."""
    return text if isinstance(text, bytes) else text.encode()


def _named(text: str | bytes) -> str:
    return repr(shown(_bytes(text)[:80].decode(errors="replace")))
