"""Which operators of TorchScript compute, and do nothing beside that.

This is asked of torch's own schemas, so that the answer holds for whatever version of torch is
installed: an operator computes if each of its forms takes and gives tensors, numbers, and lists and
dictionaries of them. Text is what names files and is printed, so operators that take text count
only if they are known here; so do those that torch calls private, and those of the language.
"""

import re
from functools import cache

import torch

from genselfdiff.errors import ModelError
from genselfdiff.kernels import OPERATIONS


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(text.split())


_NUMBERS = frozenset(
    f"{kind}Type"
    for kind in (
        *("Tensor", "Int", "Float", "Bool", "Number", "Complex", "None", "DeviceObj", "Generator"),
        *("List", "Optional", "Tuple", "Dict", "Var"),
    )
)
"""Kinds of values that computing is done with."""

_TEXTS = frozenset({"StringType", "AnyType", "AnyEnumType"})

_WITH_TEXT = words(
    """
    conv1d conv2d conv3d div div_ divide divide_ einsum fft_fft fft_fft2 fft_fftn fft_ifft
    fft_ifft2 fft_ifftn fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn gelu gelu_
    index_reduce index_reduce_ linalg_eigh linalg_matrix_norm linalg_norm linalg_qr linalg_svd
    meshgrid nanquantile pad pad_sequence quantile scatter scatter_ scatter_reduce
    scatter_reduce_ searchsorted stft
    Delete Float Int __contains__ __getitem__ _set_item add any bin capitalize center clear copy
    count dequantize device dict endswith eq expandtabs find format ge get gt hex index isalnum
    isalpha isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper
    items join keys le len list ljust lower lstrip lt ne oct ord partition percentFormat pop
    popitem remove replace rfind rindex rjust rpartition rsplit rstrip setdefault slice sort
    sorted split splitlines startswith str strip swapcase title update upper values warn zfill
    """
)
"""Whose text says how to compute, or is only worked on; ``warn`` is how torch's own layers warn."""

_DIMENSIONS = words("dim dim0 dim1 dim2 dims end_dim names out_dim outdim start_dim")
"""Arguments that say which dimension is meant; up to torch 2.12 by a name, too."""

_PRIVATE = words(
    """
    __and__ __contains__ __derive_index __getitem__ __iand__ __ilshift__ __ior__ __irshift__ __is__
    __isnot__ __ixor__ __lshift__ __not__ __or__ __range_length __round_to_zero_floordiv __rshift__
    __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d _cast_Float _cast_Long _convolution
    _log_softmax _native_multi_head_attention _nested_tensor_from_mask
    _nested_tensor_from_mask_left_aligned _pad_circular _set_item _shape_as_tensor _softmax
    _tensor_to_list _transformer_encoder_layer_fwd _unwrap_optional _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm
    """
)
"""The names with an underscore that ordinary layers need."""

_LANGUAGE = words(
    """
    IfThenElse NumToTensor RaiseException StringIndex TupleIndex TupleUnpack Uninitialized abs data
    device dtype index is_cpu is_cuda is_meta is_mkldnn is_mps is_nested is_quantized is_sparse
    is_xpu itemsize layout max min name nbytes rangelist requires_grad tolist type unchecked_cast
    unchecked_unwrap_optional
    """
)
"""Of the namespace ``prim``."""

_OF_THE_PROCESS = words(
    """
    Generator backward get_gradients grad initial_seed manual_seed pin_memory retain_grad seed
    set_data set_grad_enabled
    """
)
"""Numbers and tensors alone, but what they change outlives the model: generators, gradients."""

_INSIDE_TORCH = re.compile(
    r"_|.*_backward|sparse_|.*_sparse|(cudnn|fbgemm|miopen|mkldnn|mps|quantized|sym|to_sparse)_"
)
"""Parts that other operators are made of; they believe what they are given."""


@cache
def computes(operator: str) -> bool:
    """Whether ``operator``, such as "aten::conv2d", computes and does nothing else."""
    namespace, _, name = operator.partition("::")
    if namespace == "gsd":
        return any(name == operation.name for operation in OPERATIONS)
    if namespace == "prim":
        return name in _LANGUAGE
    if namespace != "aten" or name in _OF_THE_PROCESS:
        return False
    if _INSIDE_TORCH.match(name) and name not in _PRIVATE:
        return False
    schemas = _schemas(operator)
    kinds = {kind for schema in schemas for kind in _kinds(schema)}
    return bool(schemas) and kinds <= (_NUMBERS | _TEXTS if name in _WITH_TEXT else _NUMBERS)


def check_operator(operator: str) -> None:
    """Raise ModelError unless ``operator`` computes and does nothing else."""
    if computes(operator):
        return
    if operator.startswith("gsd::"):
        raise ModelError(
            f"needs {operator}, which this version of genselfdiff does not have: update"
            " genselfdiff, or export the run again"
        )
    if not _schemas(operator):
        raise ModelError(f"needs {operator}, which this version of torch does not have")
    raise ModelError(f"names {operator}, which does more than compute")


def check_attribute(name: str) -> None:
    """Raise ModelError if ``name``, as an attribute of a tensor, is an operator that is refused."""
    operators = [operator for space in ("aten", "prim") if _schemas(operator := f"{space}::{name}")]
    if operators and not any(map(computes, operators)):
        check_operator(operators[0])


def _schemas(operator: str) -> list[torch._C.FunctionSchema]:
    return torch._C._jit_get_schemas_for_operator(operator)


def _kinds(schema: torch._C.FunctionSchema) -> set[str]:
    kinds = set()
    values = (*schema.arguments, *schema.returns)
    todo = [value.type for value in values if value.name not in _DIMENSIONS]
    while todo:
        kind = todo.pop()
        kinds.add(kind.kind())
        todo += kind.containedTypes()  # type: ignore[attr-defined]
    return kinds
