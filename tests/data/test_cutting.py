import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from genselfdiff.data.cutting import CutSettings, cut_tiles
from genselfdiff.data.folder_parts import alone_in
from genselfdiff.errors import InputError, OutputError
from genselfdiff.slides import open_slide, read_image


@pytest.fixture
def slide(tmp_path):
    """1200 x 900 pixels of 0.25 um, with tissue in the left half."""
    random = np.random.default_rng(0)
    image = np.full((900, 1200, 3), 244, np.uint8)
    image[:, :600] = np.array((180, 90, 150)) + random.integers(-40, 40, (900, 600, 1))
    tifffile.imwrite(
        tmp_path / "slide.tif",
        image,
        photometric="rgb",
        tile=(128, 128),
        resolution=(40_000, 40_000),
        resolutionunit="CENTIMETER",
    )
    return tmp_path / "slide.tif"


def table(folder):
    with (folder / "tiles.csv").open(encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_tiles_of_tissue(slide, tmp_path):
    settings = CutSettings(mpp=0.5, tile_size=64)
    folder = tmp_path / "tiles"
    assert cut_tiles([slide], folder, settings) == {slide: 7 * 5}
    rows = table(folder)
    assert {int(row["x"]) for row in rows} == {0, 128, 256, 384, 512}
    assert {int(row["y"]) for row in rows} == set(range(0, 7 * 128, 128))
    assert all(float(row["tissue"]) >= 0.5 for row in rows)
    row = next(row for row in rows if (row["x"], row["y"]) == ("256", "128"))
    assert row["tile"] == "slide/slide_x256_y128.png"
    assert row["slide"] == str(slide)
    with open_slide(slide) as source:
        expected = source.at_mpp(0.5).read(128, 64, 64, 64)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / row["tile"])), expected)
    with open_slide(folder / row["tile"]) as tile:
        assert tile.mpp == pytest.approx(0.5, rel=1e-3)


def test_a_call_that_was_stopped_goes_on(slide, tmp_path, monkeypatch):
    settings, folder = CutSettings(mpp=0.5, tile_size=64), tmp_path / "tiles"
    save, saved = Image.Image.save, []

    def counted(self, *arguments, **options):
        if len(saved) == 10:
            raise KeyboardInterrupt
        saved.append(arguments)
        return save(self, *arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Image.Image, "save", counted)
        cut_tiles([slide], folder, settings)
    assert len(list((folder / "slide").iterdir())) == 10
    kept = {path: path.stat().st_mtime_ns for path in (folder / "slide").iterdir()}
    cut_tiles([slide], folder, settings)
    assert len(table(folder)) == len(list((folder / "slide").iterdir())) == 35
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with pytest.raises(OutputError, match="cut otherwise"):
        cut_tiles([slide], folder, CutSettings(mpp=1.0, tile_size=64))


def test_tiles_of_a_slide_that_has_changed_are_not_gone_on_with(slide, tmp_path):
    settings, folder = CutSettings(mpp=0.5, tile_size=64), tmp_path / "tiles"
    cut_tiles([slide], folder, settings)
    content = slide.read_bytes()
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    slide.write_bytes(changed)
    with pytest.raises(OutputError, match=r"tiles/slide: was cut from another slide of that name"):
        cut_tiles([slide], folder, settings)
    other = shutil.copy(slide, tmp_path / "other.tif")
    assert cut_tiles([other], folder, settings) == {other: 35}
    slide.write_bytes(content)
    assert cut_tiles([slide], folder, settings) == {slide: 35}


def test_a_limit_draws_the_same_tiles(slide, tmp_path):
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        settings = CutSettings(mpp=0.5, tile_size=64, limit=6, seed=seed)
        assert cut_tiles([slide], tmp_path / name, settings) == {slide: 6}
        drawn.append([row["tile"] for row in table(tmp_path / name)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_cannot_be_cut(slide, tmp_path):
    settings = CutSettings(mpp=0.5)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(slide, other / "slide.tif")
    with pytest.raises(InputError, match="several slides are called slide"):
        cut_tiles([slide, other / "slide.tif"], tmp_path / "tiles", settings)
    with pytest.raises(OutputError, match="holds something else"):
        cut_tiles([slide], other, settings)
    Image.new("RGB", (300, 300), (180, 90, 150)).save(tmp_path / "plain.png")
    with pytest.raises(InputError, match=r"plain\.png: .* give it with --image-mpp"):
        cut_tiles([tmp_path / "plain.png"], tmp_path / "x", settings)
    with pytest.raises(InputError, match=r"slide\.tif: .* cannot be viewed at 0\.02 um/px"):
        cut_tiles([slide], tmp_path / "x", CutSettings(mpp=0.02))
    assert not (tmp_path / "x").exists()
    known = CutSettings(mpp=0.5, image_mpp=0.5, tissue_fraction=0.0)
    assert list(cut_tiles([Path(tmp_path / "plain.png")], tmp_path / "y", known).values()) == [1]


def damage_tile(path, number):
    """Overwrite a stored tile in the middle of the tissue."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offset, count = page.dataoffsets[number], page.databytecounts[number]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * count)


def test_what_is_damaged_is_left_out_and_told(slide, tmp_path, caplog):
    settings = CutSettings(mpp=0.25, tile_size=96, tissue_fraction=0.1)
    pixels = read_image(slide)
    with tifffile.TiffWriter(tmp_path / "damaged.tif") as file:
        options = {"photometric": "rgb", "tile": (128, 128), "compression": "zlib"}
        told = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
        file.write(pixels, **options, **told)
    damage_tile(tmp_path / "damaged.tif", 11)
    (tmp_path / "none.tif").write_bytes(slide.read_bytes()[:300])
    slides = [tmp_path / "none.tif", tmp_path / "damaged.tif", slide]
    counts = cut_tiles(slides, tmp_path / "tiles", settings)
    # One of 128 x 128 lies in four of 96 x 96.
    assert list(counts.values()) == [None, 7 * 9 - 4, 7 * 9]
    assert "tiles, as " in caplog.text
    assert "none.tif" in caplog.text and "this slide is left out" in caplog.text
    lacking = {f"damaged/damaged_x{x}_y{y}.png" for x in (96, 192) for y in (96, 192)}
    assert not lacking & {row["tile"] for row in table(tmp_path / "tiles")}
    with pytest.raises(InputError, match=r"none\.tif"):
        cut_tiles(slides[:1], tmp_path / "x", settings)
    assert not (tmp_path / "x").exists()


def test_a_second_call_for_the_same_folder_is_refused(slide, tmp_path):
    settings = CutSettings(mpp=0.5, tile_size=64)
    with alone_in(tmp_path / "tiles"):
        with pytest.raises(OutputError, match="another process is writing into it"):
            cut_tiles([slide], tmp_path / "tiles", settings)
        assert not list((tmp_path / "tiles").iterdir())
    assert not (tmp_path / "tiles").exists()


@pytest.mark.parametrize("name", ["mine.txt", ".hidden", "tiles.json"])
def test_a_folder_of_others_is_left_as_it_is(slide, tmp_path, name):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / name).write_bytes(b"\xff mine")
    with pytest.raises(OutputError, match="holds something else"):
        cut_tiles([slide], tmp_path / "tiles", CutSettings(mpp=0.5))
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "tiles").iterdir()] == [
        (name, b"\xff mine")
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mpp": 0.0}, "mpp"),
        ({"tile_size": 4}, "at least 8"),
        ({"tissue_fraction": 1.5}, "from 0 to 1"),
        ({"limit": 0}, "leaves none"),
    ],
)
def test_settings_out_of_range(options, told):
    with pytest.raises(InputError, match=told):
        CutSettings(**({"mpp": 0.5} | options))


def test_a_link_in_place_of_a_slides_folder_is_not_followed(slide, tmp_path):
    settings, folder = CutSettings(mpp=0.5, tile_size=64, limit=1), tmp_path / "tiles"
    cut_tiles([slide], folder, settings)
    shutil.rmtree(folder / "slide")
    (tmp_path / "elsewhere").mkdir()
    (folder / "slide").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"tiles/slide: is a link"):
        cut_tiles([slide], folder, settings)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_in_place_of_a_slides_folder_is_told(slide, tmp_path):
    settings, folder = CutSettings(mpp=0.5, tile_size=64), tmp_path / "tiles"
    cut_tiles([slide], folder, settings)
    shutil.rmtree(folder / "slide")
    (folder / "slide").write_text("mine")
    with pytest.raises(OutputError, match="tiles/slide: cannot be written: File exists"):
        cut_tiles([slide], folder, settings)
