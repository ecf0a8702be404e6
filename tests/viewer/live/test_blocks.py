"""What is kept of blocks, and the tiles that are made of them."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from genselfdiff.live.blocks import COARSEST, Block, BlockStore, Picture, blocks_in
from genselfdiff.masks import MaskWriter, PyramidShape
from genselfdiff.masks.mask_writer import halve_labels
from genselfdiff.viewer.layers import Layer
from genselfdiff.viewer.tiles import NoTile, TilePlace, layer_tile

WIDTH, HEIGHT = 1301, 903
HERE = Picture(0, 0)


@pytest.fixture
def labels() -> np.ndarray:
    fine = np.random.default_rng(1).integers(0, 3, (HEIGHT, WIDTH))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.where((x // 50 + y // 70) % 2, fine, (x // 200) % 3).astype(np.uint8)


def put(store: BlockStore, labels: np.ndarray, blocks: list[Block]) -> None:
    for block in blocks:
        x, y, width, height = block.window(WIDTH, HEIGHT)
        store.put(HERE, block, labels[y : y + height, x : x + width])


def test_tiles_at_all_levels_are_those_of_a_mask(labels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    colours = [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    with MaskWriter(
        path, PyramidShape(WIDTH, HEIGHT, 0.5), palette=colours, class_names="abc"
    ) as writer:
        writer.write_rows(labels)
    layer, store = Layer(path), BlockStore(10**9)
    put(store, labels, blocks_in(0, 0, WIDTH, HEIGHT))
    for level in range(COARSEST + 1):
        for column in range(-(-labels.shape[1] // 512)):
            for row in range(-(-labels.shape[0] // 512)):
                place = TilePlace(level, column, row)
                tile = imagecodecs.png_decode(store.tile(HERE, place, WIDTH, HEIGHT))
                wanted = labels[512 * row :, 512 * column :][:512, :512]
                if level <= 2:  # the file has no smaller ones
                    wanted = imagecodecs.png_decode(layer_tile(layer, place, 0))
                np.testing.assert_array_equal(tile[..., 0], wanted)
                assert (tile[..., 1] == 255).all()
        with pytest.raises(NoTile):
            store.tile(HERE, TilePlace(level, column + 1, row), WIDTH, HEIGHT)
        labels = halve_labels(labels)


def test_a_tile_tells_where_nothing_is_known(labels: np.ndarray) -> None:
    store = BlockStore(10**9)
    put(store, labels, [Block(1, 0)])
    tile = imagecodecs.png_decode(store.tile(HERE, TilePlace(1, 0, 0), WIDTH, HEIGHT))
    assert tile.shape == (452, 512, 2)
    known = np.zeros((452, 512), bool)
    known[:256, 256:] = True
    np.testing.assert_array_equal(tile[..., 1] == 255, known)
    assert set(np.unique(tile[..., 1])) == {0, 255}
    other = imagecodecs.png_decode(store.tile(Picture(1, 0), TilePlace(1, 0, 0), WIDTH, HEIGHT))
    assert not other.any()


def test_memory_is_bounded_and_what_was_looked_at_stays(labels: np.ndarray) -> None:
    blocks = blocks_in(0, 0, WIDTH, HEIGHT)
    store = BlockStore(10**9)
    put(store, labels, blocks[:1])
    one = store._held
    store = BlockStore(int(2.5 * one))
    put(store, labels, blocks[:2])
    store.tile(HERE, TilePlace(0, *blocks[0]), WIDTH, HEIGHT)
    put(store, labels, blocks[2:3])
    assert store.missing(HERE, blocks[:3]) == [blocks[1]]
    assert store._held <= 2.5 * one
    put(store, labels, blocks[2:3])  # once more: it counts once
    assert store.missing(HERE, blocks[:3]) == [blocks[1]]
    assert store.put_since(HERE, 3) == (4, [blocks[2]])


@pytest.mark.parametrize(
    ("window", "first", "count"),
    [
        ((0, 0, 1, 1), Block(0, 0), 1),
        ((511, 511, 2, 2), Block(0, 0), 4),
        ((512, 1024, 512, 512), Block(1, 2), 1),
        ((100, 200, 1400, 900), Block(1, 1), 9),
    ],
)
def test_blocks_from_the_middle_outwards(
    window: tuple[int, int, int, int], first: Block, count: int
) -> None:
    blocks = blocks_in(*window)
    assert blocks[0] == first
    assert len(blocks) == len(set(blocks)) == count
    middle = window[0] + window[2] / 2, window[1] + window[3] / 2
    apart = [
        np.hypot(512 * b.column + 256 - middle[0], 512 * b.row + 256 - middle[1]) for b in blocks
    ]
    assert apart == sorted(apart)
