"""Model files in ONNX, which onnxruntime runs: data, of which every part is looked at."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import nn

from genselfdiff.errors import InputError, ModelError, one_line
from genselfdiff.models.formats.exported_program import (
    SIZES,
    TOLERANCE,
    example_images,
    exported_program,
)
from genselfdiff.models.formats.format import Format, ModelParts, quiet
from genselfdiff.models.formats.onnx_checks import checked_model
from genselfdiff.models.model_info import EXTRA_FILE, ModelInfo
from genselfdiff.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""Written so: the oldest with all that a network needs, which most other programs run."""
INPUT, OUTPUT = "images", "probabilities"
LARGEST = 2**31 - 1
"""Bytes of a file: protobuf has no more."""


class OnnxModule(nn.Module):
    """Called as ``Segmenter`` is; images and probabilities are on the CPU.

    It uses one thread where its caller uses one, else as many as torch does where it is made.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content
        self._all_threads = torch.get_num_threads()
        self._sessions: dict[int, Any] = {}
        self._session()  # what is wrong with it is told now

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in 0..255 to (N, C, H, W) float32.

        Raises:
            RuntimeError: onnxruntime fails.
        """
        session = self._session()
        images = np.ascontiguousarray(x.to(torch.float32).numpy())
        with _failing():
            (output,) = session.run(None, {session.get_inputs()[0].name: images})
        return torch.from_numpy(output)

    def _session(self) -> Any:
        threads = 1 if torch.get_num_threads() == 1 else self._all_threads
        if threads not in self._sessions:
            onnxruntime = _import("onnxruntime")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 4  # errors are raised, and told once
            with _failing():
                self._sessions[threads] = onnxruntime.InferenceSession(
                    self._content,
                    options,
                    providers=["CPUExecutionProvider"],
                    enable_fallback=0,  # which would try again, and print why
                )
        return self._sessions[threads]


def _contents(network: nn.Module, info: ModelInfo, portable: bool) -> BinaryIO:
    """``portable`` is what ONNX is in any case."""
    onnx = _import("onnx")
    _import("onnxscript")
    _import("onnxruntime")
    size = sum(value.nbytes for value in network.state_dict().values())
    if size > LARGEST:
        raise ModelError(
            f"the network has {size / 2**30:.1f} GiB of weights; a file of ONNX holds 2 GiB: export"
            " to .ts or .pt2"
        )
    program = exported_program(network, info)
    with quiet("torch.onnx"):
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # of many classes, which are torch's own affair
            raise ModelError(f"the network cannot be exported: {one_line(error)}") from error
    assert exported is not None
    model = exported.model_proto
    _describe(model, info)
    content: bytes = model.SerializeToString()
    try:
        onnx.checker.check_model(content)
        checked_model(content)
    except (onnx.checker.ValidationError, ModelError) as error:
        raise ModelError(f"the network cannot be exported: it {one_line(error)}") from error
    module, plain = OnnxModule(content), program.module()
    for images in map(example_images, SIZES):
        with torch.no_grad():
            difference = (module(images) - plain(images)).abs().max()
        if not difference <= TOLERANCE:
            raise ModelError(
                f"the network cannot be exported: onnxruntime's results are off by {difference:g}"
            )
    return io.BytesIO(content)


def _describe(model: "ModelProto", info: ModelInfo) -> None:
    """Tell what a user must know, and nothing of where the model was made."""
    model.producer_name, model.producer_version = "genselfdiff", __version__
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.graph.value_info[:]  # whose sizes bear the names of torch's symbols
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        shape = value.type.tensor_type.shape.dim
        for axis, name in ((0, "N"), (2, "H"), (3, "W")):
            shape[axis].dim_param = name
    model.metadata_props.add(key=EXTRA_FILE, value=info.to_json())


def _read(file: BinaryIO, device: torch.device) -> ModelParts:
    _import("onnx")
    try:
        content = file.read(LARGEST + 1)
    except OSError as error:
        raise ModelError(f"cannot be read: {one_line(error)}") from error
    checked, metadata = checked_model(content)
    info = ModelInfo.from_json(metadata)
    digest = hashlib.sha256(content).hexdigest()[:16]
    return ModelParts(info, OnnxModule(checked), digest, float32_only=True)


def _import(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError as error:
        raise InputError(f"ONNX files need {name}: pip install 'genselfdiff[onnx]'") from error


@contextmanager
def _failing() -> Iterator[None]:
    """Turn what onnxruntime raises, of many classes of its own, into RuntimeError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise RuntimeError(f"onnxruntime: {one_line(error)}") from error


ONNX = Format("onnx", ".onnx", _contents, _read, on_cpu_only=True)
