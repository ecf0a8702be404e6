"""Unlabelled tiles: where they come from, that they repeat, and that a split does not leak."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from genselfdiff.data import reading, tiles
from genselfdiff.data.reading import WindowReader
from genselfdiff.data.tiles import UnlabelledTiles, open_sources, split_sources
from genselfdiff.errors import InputError
from genselfdiff.slides.formats import png_jpeg

Save = Callable[..., Path]
Pixels = NDArray[np.uint8]

MPP = 0.5


def tissue_like(width: int, height: int, seed: int = 0) -> Pixels:
    """Purple noise (height, width, 3): every window of it is unlike any other."""
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return (noise + np.array([150, 70, 140])).astype(np.uint8)


def position_coded(width: int, height: int) -> Pixels:
    """A purple field whose red and green values tell x (below 1024), the blue ones y mod 16."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    planes = [150 + (x & 15), 60 + (x >> 4), 140 + (y & 15)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def decoded_x(tile: torch.Tensor) -> NDArray[np.int64]:
    """The x of every pixel of a (3, H, W) tile of `position_coded`."""
    values = tile.numpy().astype(np.int64)
    return (values[0] - 150) + ((values[1] - 60) << 4)


def dataset(paths: list[Path], **options: object) -> UnlabelledTiles:
    settings: dict = {"mpp": MPP, "tile_size": 64, "seed": 7, "length": 50} | options
    sources = open_sources(paths, mpp=settings["mpp"], image_mpp=MPP)
    return UnlabelledTiles(sources, **settings)


def test_item_is_a_window_of_the_file(save: Save) -> None:
    image = tissue_like(200, 150)
    drawn = dataset([save("a.png", image)], flips=False)
    for index in range(20):
        source, x, y = drawn.place(index)
        assert source.path.name == "a.png"
        expected = image[y : y + 64, x : x + 64].transpose(2, 0, 1)
        assert drawn[index].dtype == torch.uint8
        np.testing.assert_array_equal(drawn[index].numpy(), expected)


def test_items_cover_the_image_to_its_edges(save: Save) -> None:
    drawn = dataset([save("a.png", tissue_like(80, 66))], length=400, flips=False)
    places = [drawn.place(index)[1:] for index in range(400)]
    assert {x for x, _ in places} == set(range(80 - 64 + 1))
    assert {y for _, y in places} == {0, 1, 2}


def test_flips_mirror_either_way_in_half_of_the_items(save: Save) -> None:
    image = tissue_like(64, 64)
    drawn = dataset([save("a.png", image)], length=400)
    mirrored: Counter[tuple[bool, bool]] = Counter()
    for index in range(400):
        tile = drawn[index].numpy().transpose(1, 2, 0)
        for vertical in (False, True):
            for horizontal in (False, True):
                rows, columns = -1 if vertical else 1, -1 if horizontal else 1
                if np.array_equal(tile, image[::rows, ::columns]):
                    mirrored[vertical, horizontal] += 1
    assert mirrored.total() == 400
    assert all(70 <= mirrored[key] <= 130 for key in mirrored) and len(mirrored) == 4


def test_item_depends_on_seed_and_index_only(save: Save) -> None:
    paths = [save(f"{i}.png", tissue_like(150, 150, i)) for i in range(3)]
    forward = dataset(paths)
    again = dataset(paths)
    backward = {index: again[index] for index in reversed(range(50))}
    assert all(torch.equal(forward[index], backward[index]) for index in range(50))
    assert len({forward[index].numpy().tobytes() for index in range(50)}) == 50
    other = dataset(paths, seed=8)
    assert not any(torch.equal(forward[index], other[index]) for index in range(50))


@pytest.mark.parametrize(("context", "cached"), [("fork", True), ("fork", False), ("spawn", False)])
def test_workers_give_what_the_main_process_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: str, cached: bool
) -> None:
    if context not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {context}")
    path = tmp_path / "slide.tif"
    image = tissue_like(1000, 700)
    tifffile.imwrite(path, image, tile=(64, 64), photometric="rgb", compression="zlib")
    if not cached:
        monkeypatch.setattr(tiles, "CACHED_PIXELS", 0)
    drawn = dataset([path], length=200)
    first = drawn[0]  # the file is open when the workers start
    loader = DataLoader(drawn, batch_size=10, num_workers=2, multiprocessing_context=context)
    loaded = torch.cat(list(loader))
    assert torch.equal(loaded[0], first)
    assert torch.equal(loaded, torch.stack([drawn[index] for index in range(200)]))


def test_index_beyond_the_length_is_refused(save: Save) -> None:
    drawn = dataset([save("a.png", tissue_like(64, 64))], length=3)
    assert len(drawn) == len(list(drawn)) == 3
    with pytest.raises(IndexError):
        drawn[-1]


def test_only_tissue_is_drawn(save: Save) -> None:
    image = tissue_like(900, 600)
    image[:, 300:] = 245
    drawn = dataset([save("a.png", image)], tile_size=128, length=100)
    shares = [(drawn[index][1] < 200).float().mean().item() for index in range(100)]
    assert min(shares) > 0.35
    assert np.mean(shares) > 0.8
    assert np.mean(np.array(shares) < 1) > 0.1  # tissue borders are drawn as well


def test_sources_are_drawn_in_proportion_to_their_tissue(save: Save) -> None:
    half_empty = tissue_like(800, 400, 1)
    half_empty[:, 400:] = 245
    paths = [save("half.png", half_empty), save("small.png", tissue_like(200, 400, 2))]
    drawn = dataset(paths, length=600)
    counts = Counter(drawn.place(index)[0].path.name for index in range(600))
    assert counts["half.png"] / 600 == pytest.approx(2 / 3, abs=0.08)


def test_tiles_are_resampled_to_the_asked_resolution(save: Save) -> None:
    image = np.repeat(np.repeat(tissue_like(150, 150), 2, axis=0), 2, axis=1)
    drawn = dataset([save("a.png", image)], mpp=2 * MPP, flips=False)
    source, x, y = drawn.place(0)
    expected = image[2 * y : 2 * y + 128 : 2, 2 * x : 2 * x + 128 : 2].transpose(2, 0, 1)
    assert source.mpp == MPP
    np.testing.assert_allclose(drawn[0].numpy().astype(int), expected.astype(int), atol=1)


def test_large_images_are_read_window_by_window_to_the_same_pixels(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save("a.png", tissue_like(400, 300))
    cached = dataset([path], mpp=0.8)
    held = [cached[index].int() for index in range(20)]
    monkeypatch.setattr(tiles, "CACHED_PIXELS", 0)
    streamed = dataset([path], mpp=0.8)
    for index, tile in enumerate(held):
        assert (streamed[index].int() - tile).abs().max() <= 1


def test_reader_decodes_an_image_once_until_its_bound_is_reached(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(f"{i}.png", tissue_like(100, 100, i)) for i in range(2)]
    decoded: list[Path] = []
    original = reading.open_counting
    monkeypatch.setattr(
        reading,
        "open_counting",
        lambda damage, **how: decoded.append(damage.path) or original(damage, **how),
    )

    def read_alternately(reader: WindowReader) -> int:
        decoded.clear()
        for path in paths * 3:
            reader.read(path, source_mpp=1.0, mpp=1.0, window=(0, 0, 9, 9), cached=True)
        return len(decoded)

    assert read_alternately(WindowReader(cache_bytes=2 * 30_000)) == 2
    assert read_alternately(WindowReader(cache_bytes=2 * 30_000 - 1)) == 6


def test_workers_share_the_bound_of_one_process(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(f"{i}.png", tissue_like(100, 100, i)) for i in range(4)]
    monkeypatch.setattr(reading, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    reader = WindowReader(cache_bytes=4 * 30_000)
    for path in paths:
        reader.read(path, source_mpp=1.0, mpp=1.0, window=(0, 0, 9, 9), cached=True)
    decoded: list[Path] = []
    monkeypatch.setattr(reading, "_whole", lambda view: decoded.append(view) or np.zeros((9, 9, 3)))
    for path in reversed(paths):
        reader.read(path, source_mpp=1.0, mpp=1.0, window=(0, 0, 9, 9), cached=True)
    assert len(decoded) == 2


@pytest.mark.parametrize("mpp", [MPP, 0.8])
def test_what_is_decoded_in_large_pieces_is_decoded_once_for_all_tiles(
    save: Save, monkeypatch: pytest.MonkeyPatch, mpp: float
) -> None:
    paths = [save(f"{i}.png", tissue_like(400, 300, i)) for i in range(2)]
    monkeypatch.setattr(tiles, "CACHED_PIXELS", 0)
    streamed = dataset(paths, mpp=mpp)
    expected = [streamed[index] for index in range(30)]
    decoded: list[object] = []
    original = png_jpeg._Picture.decode

    def decode(picture: png_jpeg._Picture, column: int, row: int) -> Pixels:
        decoded.append(picture)
        return original(picture, column, row)

    monkeypatch.setattr(png_jpeg._Picture, "decode", decode)
    monkeypatch.setattr(reading, "PIECE_PIXELS", 400 * 300 - 1)
    monkeypatch.setattr(reading, "BAND_PIXELS", 400 * 70)
    for index in range(30):
        assert torch.equal(streamed[index], expected[index])
    assert len(decoded) == 2
    # Those of more pixels than may be spooled go on being read window by window.
    monkeypatch.setattr(tiles, "shared_reader", WindowReader())
    monkeypatch.setattr(reading, "SPOOLED_PIXELS", 100)
    monkeypatch.setattr(reading, "spooled_image", lambda *_: pytest.fail("spooled"))
    assert torch.equal(streamed[0], expected[0])


def test_an_image_smaller_than_the_tile_is_left_out_and_named(
    save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    small, large = (
        save("small.png", tissue_like(100, 300)),
        save("large.png", tissue_like(300, 300)),
    )
    with pytest.raises(InputError, match=r"small\.png: no tissue tile .* at 1 .* --tile-size"):
        dataset([small], mpp=1.0)
    with caplog.at_level(logging.WARNING, "genselfdiff"):
        drawn = dataset([small, large], mpp=1.0)
    assert "small.png: left out" in caplog.text
    assert {drawn.place(index)[0].path.name for index in range(50)} == {"large.png"}


def test_no_tissue_at_all_is_an_error(save: Save) -> None:
    path = save("blank.png", np.full((200, 200, 3), 244, np.uint8))
    with pytest.raises(InputError, match=r"blank\.png: no tissue tile of 64 pixels"):
        dataset([path])


def test_a_source_without_tissue_is_left_out_and_named(
    save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    blank = save("blank.png", np.full((200, 200, 3), 244, np.uint8))
    with caplog.at_level(logging.WARNING, "genselfdiff"):
        drawn = dataset([blank, save("a.png", tissue_like(200, 200))])
    assert "blank.png: left out" in caplog.text
    assert {drawn.place(index)[0].path.name for index in range(50)} == {"a.png"}


def test_a_blank_file_is_never_the_one_held_out(save: Save) -> None:
    blank = save("blank.png", np.full((200, 200, 3), 244, np.uint8))
    paths = [save(f"{name}.png", tissue_like(200, 200)) for name in "abcd"]
    sources = open_sources([blank, *paths], mpp=MPP, image_mpp=MPP)
    for seed in range(20):
        sides = split_sources(sources, mpp=MPP, tile_size=64, seed=seed)
        assert sorted(source.path.name for side in sides for source in side) == [
            "a.png",
            "b.png",
            "c.png",
            "d.png",
        ]


def test_resolution_is_asked_for_where_nothing_tells_it(save: Save) -> None:
    path = save("a.png", tissue_like(100, 100))
    with pytest.raises(InputError, match=r"a\.png: .*--image-mpp"):
        open_sources([path], mpp=MPP)
    assert open_sources([path], mpp=MPP, image_mpp=0.3)[0].mpp == 0.3


def test_stored_resolution_wins_and_a_contradiction_is_named(
    save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    close = save("close.png", tissue_like(100, 100), mpp=0.27)
    far = save("far.png", tissue_like(100, 100), mpp=0.5)
    with caplog.at_level(logging.WARNING, "genselfdiff"):
        sources = open_sources([close, far], mpp=0.5, image_mpp=0.25)
    assert [source.mpp for source in sources] == pytest.approx([0.27, 0.5], rel=1e-3)
    assert "far.png: the resolution" in caplog.text
    assert "close.png" not in caplog.text


def test_enlarged_images_are_named(save: Save, caplog: pytest.LogCaptureFixture) -> None:
    path = save("coarse.png", tissue_like(100, 100), mpp=1.0)
    with caplog.at_level(logging.WARNING, "genselfdiff"):
        open_sources([path], mpp=0.5)
    assert "coarse.png: coarser than" in caplog.text


def test_four_files_are_split_by_file(save: Save) -> None:
    paths = [save(f"{i}.png", tissue_like(100, 100, i)) for i in range(10)]
    sources = open_sources(paths, mpp=MPP, image_mpp=MPP)
    training, validation = split_sources(sources, mpp=MPP, tile_size=64, fraction=0.2, seed=3)
    assert len(validation) == 2
    assert sorted(source.path for source in training + validation) == sorted(paths)
    assert not {source.path for source in training} & {source.path for source in validation}
    again = split_sources(sources, mpp=MPP, tile_size=64, fraction=0.2, seed=3)
    assert again == (training, validation)
    few = split_sources(sources[:4], mpp=MPP, tile_size=64, fraction=0.01)
    assert len(few[1]) == 1


@pytest.mark.parametrize("mpp", [MPP, 0.8])
def test_regions_of_few_files_do_not_overlap(save: Save, mpp: float) -> None:
    path = save("a.png", position_coded(1000, 200))
    sources = open_sources([path], mpp=mpp, image_mpp=MPP)
    training, validation = split_sources(sources, mpp=mpp, tile_size=64)
    left = UnlabelledTiles(training, mpp=mpp, tile_size=64, seed=0, length=200)
    right = UnlabelledTiles(validation, mpp=mpp, tile_size=64, seed=0, length=200)
    scale = mpp / MPP
    ends = [(left.place(index)[1] + 64) * scale for index in range(200)]
    starts = [right.place(index)[1] * scale for index in range(200)]
    assert max(ends) <= min(starts)
    assert max(ends) - min(starts) > -40  # nothing is wasted between the two
    if scale == 1:
        seen_left = max(decoded_x(left[index]).max() for index in range(200))
        seen_right = min(decoded_x(right[index]).min() for index in range(200))
        assert seen_left < seen_right


def test_validation_region_is_between_a_tile_and_a_third(save: Save) -> None:
    path = save("a.png", tissue_like(1000, 200))
    sources = open_sources([path], mpp=MPP, image_mpp=MPP)

    def width(fraction: float) -> int:
        _, validation = split_sources(sources, mpp=MPP, tile_size=64, fraction=fraction)
        return validation[0].region[2]

    assert width(0.2) == pytest.approx(200, abs=8)
    assert 64 <= width(0.01) <= 70
    assert 325 <= width(0.9) <= 334


def test_validation_region_is_cut_from_tissue_not_from_the_empty_margin(save: Save) -> None:
    image = tissue_like(1000, 200)
    image[:, 600:] = 245
    sources = open_sources([save("a.png", image)], mpp=MPP, image_mpp=MPP)
    _, validation = split_sources(sources, mpp=MPP, tile_size=64, fraction=0.2)
    assert validation[0].region[0] == pytest.approx(480, abs=25)
    UnlabelledTiles(validation, mpp=MPP, tile_size=64, seed=0, length=1)


def test_nothing_wide_enough_to_split_is_an_error(save: Save) -> None:
    sources = open_sources([save("a.png", tissue_like(190, 200))], mpp=MPP, image_mpp=MPP)
    with pytest.raises(InputError, match=r"a\.png: .*smaller --tile-size"):
        split_sources(sources, mpp=MPP, tile_size=64)


def test_narrow_file_beside_a_wide_one_goes_to_training(save: Save) -> None:
    paths = [save("wide.png", tissue_like(400, 100)), save("narrow.png", tissue_like(100, 100))]
    sources = open_sources(paths, mpp=MPP, image_mpp=MPP)
    training, validation = split_sources(sources, mpp=MPP, tile_size=64)
    full = (0, 0, 100, 100)
    assert [source.path.name for source in validation] == ["wide.png"]
    assert {source.path.name: source.region for source in training}["narrow.png"] == full
