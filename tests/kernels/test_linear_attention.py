import pytest
import torch
import torch.nn.functional as F

from genselfdiff.kernels import linear_attention

HEADS, HEAD_DIM = 4, 32


def published_form(x, nw, nb, wqkv, wo, bo, ow, ob):
    """As the paper writes it: head by head, channel-major, with einsum."""
    n, _, h, w = x.shape
    y = F.group_norm(x, 1, nw, nb)
    q, k, v = (
        part.reshape(n, HEADS, HEAD_DIM, h * w) for part in F.conv2d(y, wqkv).chunk(3, dim=1)
    )
    q = q.softmax(2) * HEAD_DIM**-0.5
    k = k.softmax(3)
    context = torch.einsum("bhdn,bhen->bhde", k, v)
    out = torch.einsum("bhde,bhdn->bhen", context, q).reshape(n, HEADS * HEAD_DIM, h, w)
    return x + F.group_norm(F.conv2d(out, wo, bo), 1, ow, ob)


@pytest.mark.parametrize("shape", [(2, 16, 8, 8), (1, 24, 5, 7), (3, 8, 1, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_token_major_form_is_the_published_one(shape, channels_last):
    channels = shape[1]
    hidden = HEADS * HEAD_DIM
    sizes = {
        "x": shape,
        "norm_weight": (channels,),
        "norm_bias": (channels,),
        "qkv_weight": (3 * hidden, channels, 1, 1),
        "out_weight": (channels, hidden, 1, 1),
        "out_bias": (channels,),
        "out_norm_weight": (channels,),
        "out_norm_bias": (channels,),
    }
    arguments = {name: torch.randn(size, dtype=torch.float64) for name, size in sizes.items()}
    if channels_last:
        arguments["x"] = arguments["x"].contiguous(memory_format=torch.channels_last)
    for value in arguments.values():
        value.requires_grad_()
    ours = linear_attention(*arguments.values(), HEADS)
    theirs = published_form(*arguments.values())
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    upstream = torch.randn(shape, dtype=torch.float64)
    a = torch.autograd.grad(ours, list(arguments.values()), upstream)
    b = torch.autograd.grad(theirs, list(arguments.values()), upstream)
    for name, ga, gb in zip(arguments, a, b, strict=True):
        torch.testing.assert_close(ga, gb, rtol=1e-7, atol=1e-8, msg=f"gradient of {name}")
