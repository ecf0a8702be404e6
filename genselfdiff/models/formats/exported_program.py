"""A network with everything around it as a graph of ``torch.export``, for images of any size."""

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from genselfdiff.errors import ModelError, one_line
from genselfdiff.models.formats.format import quiet
from genselfdiff.models.model_info import ModelInfo
from genselfdiff.models.segmenter import check_channels, prepared_segmenter
from genselfdiff.text import counted

SIZES = ((1, 1, 1), (3, 17, 40), (2, 64, 96))
"""(N, H, W) of images that an export is tried with: the least, an odd one, one that fits."""
TOLERANCE = 1e-4
"""How far probabilities may be off there."""

_KEPT = ("val", "tensor_meta")
"""What is told of a node beside its operation. The rest names its maker's folders and classes."""


def exported_program(network: nn.Module, info: ModelInfo) -> ExportedProgram:
    """``network`` (left as it is) as a ``Segmenter`` in plain torch, of any N, H and W from 1 on.

    It takes float32 images in 0..255.

    Raises:
        ModelError: the network cannot be looked at so, works for some sizes only, or is not what
            ``info`` says.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise ModelError(
            "the network is in TorchScript, of which torch.export makes no graph: give wrap_model"
            " the module itself, or write a model.ts"
        )
    segmenter = prepared_segmenter(network, info, portable=True)
    # Two images, and more than one place at the lowest level: 0 and 1 are numbers to torch.export.
    side = 2 * segmenter.size_multiple
    images = torch.zeros(2, 3, side + 1, side + segmenter.size_multiple + 1)
    sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    try:
        with torch.no_grad(), quiet("torch.export"):
            check_channels(segmenter(images).shape[1], info)
            program = torch.export.export(segmenter, (images,), dynamic_shapes=sizes, strict=False)
    except ModelError:
        raise
    except Exception as error:  # whatever somebody's network raises when it is looked at
        raise ModelError(f"the network cannot be exported: {one_line(error)}") from error
    _admit_any_size(program)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if node.target is torch.ops.aten._assert_tensor_metadata.default:
                    module.graph.erase_node(node)  # what it says of dtypes is true of all sizes
                node.meta = {name: node.meta[name] for name in _KEPT if name in node.meta}
            module.recompile()
    _check(program, segmenter)
    return program


def example_images(size: tuple[int, int, int]) -> torch.Tensor:
    """(N, 3, H, W) float32 of ``size``, whole numbers in 0..255, always the same."""
    count, height, width = size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).float()


def _admit_any_size(program: ExportedProgram) -> None:
    """Drop what torch.export concludes from how tensors lie in memory, which sizes of 1 change.

    No operation of the graph depends on that, which ``_check`` tries.
    """
    program._guards_code = []
    for symbol in program.range_constraints:
        program.range_constraints[symbol] = ValueRanges(1, int_oo)
    program.example_inputs = None


def _check(program: ExportedProgram, segmenter: nn.Module) -> None:
    module = program.module()
    for images in map(example_images, SIZES):
        try:
            with torch.no_grad():
                found, expected = module(images), segmenter(images)
        except Exception as error:  # as above
            found, expected = None, one_line(error)
        if found is None or (found - expected).abs().max() > TOLERANCE:
            count, _, height, width = images.shape
            raise ModelError(
                f"the network cannot be exported: its graph fails for"
                f" {counted(count, 'image')} of {width} x {height} pixels"
            )
