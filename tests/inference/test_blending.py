import numpy as np
import pytest
import torch

from genselfdiff.errors import InputError
from genselfdiff.inference.blending import RowBlender
from genselfdiff.inference.image import predict_image
from genselfdiff.inference.tiles import mirror_to, tile_axis
from genselfdiff.models.segmenter import Segmenter

AWKWARD = [(1, 1), (5, 300), (64, 64), (65, 129), (200, 333), (257, 71)]


def whole(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return segmenter(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.4, 0.5])
@pytest.mark.parametrize("length", [1, 7, 8, 63, 64, 65, 127, 128, 500, 1001])
def test_axis(length, overlap):
    axis = tile_axis(length, 64, overlap)
    assert axis.starts[0] == 0
    assert all(start % 8 == 0 for start in axis.starts)
    assert axis.starts[-1] + axis.tile == axis.padded
    assert length <= axis.padded < length + 8
    total = np.zeros(axis.padded)
    for start, window in zip(axis.starts, axis.windows(), strict=True):
        assert (window >= 0).all()
        total[start : start + axis.tile] += window
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert [p for i in axis.needed for p in axis.finished(i)] == list(range(length))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shown", [range(0, 1), range(60, 70), range(130, 400), range(999, 1001)])
def test_part_of_an_axis_needs_the_tiles_that_count_there(overlap, shown):
    axis = tile_axis(1001, 64, overlap)
    part = axis.showing(shown)
    assert [p for i in part.needed for p in part.finished(i)] == list(shown)
    for i, (start, window) in enumerate(zip(axis.starts, axis.windows(), strict=True)):
        counts = any(0 <= p - start < 64 and window[p - start] > 0 for p in shown)
        assert counts == (i in part.needed)


def test_margins_do_not_count_where_another_tile_knows_better():
    windows = tile_axis(640, 64, 0.5).windows()
    assert (windows[3][:8] == 0).all()
    assert (windows[3][-8:] == 0).all()
    assert (windows[0][:40] == 1).all()  # no other tile knows the image's own edge


@pytest.mark.parametrize(("tile_size", "overlap"), [(0, 0.25), (100, 0.25), (64, -0.1), (64, 0.6)])
def test_sizes_out_of_range(tile_size, overlap):
    with pytest.raises(InputError):
        tile_axis(1000, tile_size, overlap)


@pytest.mark.parametrize("size", AWKWARD)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_local_network_gives_the_whole_image(conv_net, picture, size, batch_size):
    segmenter = Segmenter(conv_net(kernel=1), "zero_one")
    image = picture(*size)
    y = predict_image(segmenter, image, tile_size=64, batch_size=batch_size)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, whole(segmenter, image), atol=1e-6)


@pytest.mark.parametrize("size", AWKWARD)
def test_short_reach_gives_the_whole_image(conv_net, picture, size):
    # The outer quarter of the overlap, 4 pixels, has no weight; the network reaches 3.
    network = conv_net(kernel=3, layers=3)
    assert network.reach == 3
    segmenter = Segmenter(network, "zero_one")
    image = picture(*size)
    y = predict_image(segmenter, image, tile_size=64)
    np.testing.assert_allclose(y, whole(segmenter, image), atol=2e-5)


def test_long_reach_is_close(conv_net, picture):
    segmenter = Segmenter(conv_net(kernel=7, layers=4), "zero_one")
    image = picture(300, 300)
    expected = whole(segmenter, image)
    smooth = np.abs(predict_image(segmenter, image, tile_size=64, overlap=0.5) - expected)
    hard = np.abs(predict_image(segmenter, image, tile_size=64, overlap=0.0) - expected)
    assert smooth.mean() < 0.1 * hard.mean()


def test_twice_the_same(conv_net, picture):
    segmenter = Segmenter(conv_net(), "zero_one")
    image = picture(150, 170)
    first, second = (predict_image(segmenter, image, tile_size=64) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_part_of_a_grid_is_blended_as_in_the_whole():
    grid = tile_axis(200, 64, 0.25), tile_axis(333, 64, 0.5)
    shown = range(50, 71), range(100, 290)
    parts = [axis.showing(part) for axis, part in zip(grid, shown, strict=True)]
    tiles = torch.rand(len(grid[0].starts), len(grid[1].starts), 2, 64, 64)

    def blend(rows, columns):
        blender = RowBlender(rows, columns, 2)
        bands = []
        for i in rows.needed:
            blocks = [blender.add(j, tiles[i, j]).copy() for j in columns.needed]
            bands.append(np.concatenate(blocks, axis=2))
        return np.concatenate(bands, axis=1)

    np.testing.assert_array_equal(blend(*parts), blend(*grid)[:, 50:71, 100:290])


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.4, 0.5])
@pytest.mark.parametrize("size", [(64, 64), (72, 200), (203, 130), (130, 333)])
def test_blending_is_the_weighted_sum(size, overlap):
    rows, columns = (tile_axis(length, 64, overlap) for length in size)
    tiles = torch.rand(len(rows.starts), len(columns.starts), 3, rows.tile, columns.tile)
    expected = np.zeros((3, rows.padded, columns.padded))
    blender = RowBlender(rows, columns, 3)
    bands = []
    for i, (y, down) in enumerate(zip(rows.starts, rows.windows(), strict=True)):
        blocks = []
        for j, (x, across) in enumerate(zip(columns.starts, columns.windows(), strict=True)):
            weighted = tiles[i, j].double().numpy() * np.outer(down, across)
            expected[:, y : y + rows.tile, x : x + columns.tile] += weighted
            blocks.append(blender.add(j, tiles[i, j]).copy())
        bands.append(np.concatenate(blocks, axis=2))
    blended = np.concatenate(bands, axis=1)
    np.testing.assert_allclose(blended, expected[:, : size[0], : size[1]], atol=1e-5)


def test_neighbours_share_what_was_asked_for_and_little_more():
    for overlap in (0.0, 0.25, 0.5):
        axis = tile_axis(10_000, 512, overlap)
        shared = [axis.tile - axis.step(i) for i in axis.needed[:-1]]
        assert 512 * overlap <= min(shared) <= max(shared) <= 512 * overlap + 32


def test_skipped_tiles_fade_into_background():
    rows, columns = tile_axis(64, 64, 0.25), tile_axis(112, 64, 0.25)
    blender = RowBlender(rows, columns, 2)
    tile = torch.stack((torch.zeros(64, 64), torch.ones(64, 64)))
    blocks = [blender.add(0, tile).copy(), blender.add(1, None)]
    y = np.concatenate(blocks, axis=2)
    np.testing.assert_allclose(y.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(y[1, :, :50], 1, atol=1e-5)
    np.testing.assert_allclose(y[0, :, 62:], 1, atol=1e-5)
    assert (np.diff(y[1, 0]) <= 1e-6).all()


def test_mirror():
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 1, 3)
    mirrored = mirror_to(pixels, 5, 2)
    assert mirrored[:, 0, 0].tolist() == [0, 3, 0, 3, 0]
    np.testing.assert_array_equal(mirrored[:, 0], mirrored[:, 1])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gpu_has_begun_the_next_tile_when_one_is_blended(picture, monkeypatch, device):
    monkeypatch.setattr("genselfdiff.inference.image.to_device", lambda tensor, _: tensor)
    order = []
    add = RowBlender.add

    def noted(blender, column, tile):
        order.append("blend")
        return add(blender, column, tile)

    def model(pixels):
        order.append("predict")
        return torch.full((len(pixels), 2, *pixels.shape[2:]), 0.5)

    monkeypatch.setattr(RowBlender, "add", noted)
    predict_image(model, picture(64, 200), tile_size=64, device=device)
    count = order.count("blend")
    assert count > 3
    if device == "cpu":
        assert order == ["predict", "blend"] * count
    else:
        assert order == ["predict", *["predict", "blend"] * (count - 1), "blend"]
