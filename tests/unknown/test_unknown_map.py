"""The map: where it is high, its size and edges, its file, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from icc_profiles import scanner_profile

from genselfdiff.errors import InputError, OutputError
from genselfdiff.slides import open_slide
from genselfdiff.unknown.learning import known_tissue
from genselfdiff.unknown.slide_cells import SlideCells
from genselfdiff.unknown.unknown_map import map_unknown
from genselfdiff.viewer.layers import Layer
from gsd.main import main

SIDE = 32


@pytest.fixture
def marked(tissue) -> np.ndarray:
    """Tissue with a stroke of a green pen, and glass on the right."""
    pixels = tissue(500, 700, 7)
    pixels[200:330, 100:300] = pixels[200:330, 100:300] * (0.3, 0.9, 0.4)
    pixels[:, 600:] = 245
    return pixels


def test_pen_is_unknown_tissue_is_known_glass_is_neither(tmp_path, known, write, marked) -> None:
    found = map_unknown(write(marked), tmp_path / "map.tif", known)
    planes = tifffile.imread(tmp_path / "map.tif")
    assert planes.shape == (2, 500, 700)
    inside, outside = planes[:, 224:320, 128:288], planes[:, :160, :560]
    assert (inside[1] == 255).mean() > 0.95
    assert (outside[1] < 128).mean() > 0.9
    assert not planes[:, :, 640:].any()
    assert set(np.unique(planes.sum(0, dtype=int))) == {0, 255}
    assert found.cells * SIDE**2 == pytest.approx(500 * 600, rel=0.1)
    assert 0.8 * 130 * 200 < found.unlike * SIDE**2 < 2.5 * 130 * 200


def test_values_are_those_of_the_cells_up_to_the_edges(tmp_path, known, write, tissue) -> None:
    path = write(tissue(100, 150, 1), mpp=0.25)  # cells of 64 pixels: rows 0, 36; columns 0, 64, 86
    map_unknown(path, tmp_path / "map.tif", known)
    with open_slide(path) as slide:
        cells = SlideCells(slide, known.mpp, known.side)
        expected = np.stack([known.unlikeness(cells.row(row)) for row in range(2)])
    assert (cells.tops, cells.lefts) == ([0, 18], [0, 32, 43])
    unknown = tifffile.imread(tmp_path / "map.tif")[1]
    row, column = np.arange(100) >= 36, np.searchsorted([64, 86], np.arange(150), side="right")
    np.testing.assert_array_equal(
        unknown, np.rint(255 * expected)[row.astype(int)][:, column].astype(np.uint8)
    )


def test_gsd_view_takes_it_and_knows_its_slide(tmp_path, known, write, tissue) -> None:
    from genselfdiff.viewer.collection import collect

    slide = write(tissue(300, 300, 1))
    map_unknown(slide, tmp_path / "map.tif", known)
    layer = Layer(tmp_path / "map.tif")
    assert (layer.kind, layer.names, layer.mpp) == ("probabilities", ["known", "unknown"], 0.5)
    layer.close()
    assert collect([slide, tmp_path / "map.tif"])[0].layers == [tmp_path / "map.tif"]


def test_bad_requests(tmp_path, known, write, tissue) -> None:
    slide, target = write(tissue(300, 300, 1)), tmp_path / "map.tif"
    with pytest.raises(InputError, match=r"map.png: a map is a TIFF"):
        map_unknown(slide, tmp_path / "map.png", known)
    with pytest.raises(OutputError, match="is an input"):
        map_unknown(slide, slide, known, overwrite=True)
    map_unknown(slide, target, known)
    with pytest.raises(OutputError, match="exists already"):
        map_unknown(slide, target, known)
    with pytest.raises(InputError, match="is a mask that gsd has written"):
        map_unknown(target, tmp_path / "other.tif", known)
    with pytest.raises(InputError, match="does not state its resolution"):
        map_unknown(write(tissue(300, 300, 1), "x.tif", mpp=None), tmp_path / "x_map.tif", known)
    with pytest.raises(InputError, match="are less than a cell of 32"):
        map_unknown(write(tissue(20, 300, 1), "y.tif"), tmp_path / "y_map.tif", known)
    assert not (tmp_path / "y_map.tif").exists()


@pytest.mark.parametrize("name", ["none.tif", "untold.tif"])
def test_a_slide_that_cannot_be_mapped_is_told_before_tissue_is_read(
    tmp_path, write, tissue, monkeypatch, name
) -> None:
    write(tissue(300, 300, 1), "untold.tif", mpp=None)
    (tmp_path / "none.tif").write_text("none")
    like = write(tissue(600, 600, 0), "like/a.tif").parent
    monkeypatch.setattr("genselfdiff.unknown.learning.known_tissue", None)
    words = ["unknown", tmp_path / name, "--like", like, "-o", tmp_path / "map.tif"]
    told = CliRunner().invoke(main, list(map(str, words)))
    assert told.stderr.startswith(f"Error: {tmp_path / name}: ")


def test_what_is_known_is_opened_before_any_of_it_is_read(write, tissue, monkeypatch) -> None:
    write(tissue(600, 600, 0), "like/a.tif")
    like = write(tissue(600, 600, 0), "like/b.tif", mpp=None).parent
    monkeypatch.setattr("genselfdiff.unknown.learning.SlideCells", None)
    with pytest.raises(InputError, match=r"b\.tif: the file does not state its resolution"):
        known_tissue(like)


def test_a_slide_of_nothing_but_glass_has_an_empty_map(tmp_path, known, write) -> None:
    glass = write(np.full((300, 300, 3), 245, np.uint8))
    found = map_unknown(glass, tmp_path / "map.tif", known)
    assert (found.cells, found.unlike) == (0, 0)
    assert not tifffile.imread(tmp_path / "map.tif").any()


def test_a_damaged_slide_leaves_nothing(tmp_path, known, write, tissue) -> None:
    path = write(tissue(600, 600, 1))
    with tifffile.TiffFile(path) as tiff:
        sizes = tiff.pages[0].tags["TileByteCounts"]
        assert len(sizes.value) > 4
    path.write_bytes(path.read_bytes()[:-200_000])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError):
        map_unknown(path, tmp_path / "map.tif", known)
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_known_of_a_run_is_what_it_was_trained_on(tmp_path, write, tissue) -> None:
    images = write(tissue(600, 600, 0), "images/a.tif", mpp=None).parent
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(
        f'stage = "pretrain"\narchitecture = "tiny"\nwidth = 8\ndata = ["{images}"]\n'
        "mpp = 0.25\nimage_mpp = 0.25\n"
    )
    of_run, of_images = known_tissue(run), known_tissue(images, mpp=0.25, image_mpp=0.25)
    assert of_run.mpp == 0.25
    assert of_run.side == 64
    np.testing.assert_array_equal(of_run.points, of_images.points)


def test_a_map_among_the_slides_is_no_known_tissue(tmp_path, known, write, tissue) -> None:
    slide = write(tissue(600, 600, 0), "slides/a.tif")
    before = known_tissue(slide.parent)
    map_unknown(slide, slide.parent / "a_unknown.tif", known)
    np.testing.assert_array_equal(known_tissue(slide.parent).points, before.points)
    with pytest.raises(InputError, match="holds nothing but masks of gsd"):
        known_tissue(slide.parent / "a_unknown.tif")


def test_images_of_unknown_resolution_are_told(write, tissue) -> None:
    path = write(tissue(600, 600, 0), mpp=None)
    with pytest.raises(InputError, match=r"slide\.tif: the file does not state .* --like-mpp"):
        known_tissue(path)
    assert known_tissue(path, image_mpp=0.5).mpp == 0.5


def test_a_slide_is_read_in_the_colours_that_the_known_were(tmp_path, tissue) -> None:
    path = tmp_path / "slide.tif"
    told = {"resolution": (2e4, 2e4), "resolutionunit": 3, "iccprofile": scanner_profile(1.2)}
    tifffile.imwrite(path, tissue(512, 512, 0), tile=(256, 256), photometric="rgb", **told)
    known = known_tissue(path, icc=True)
    assert map_unknown(path, tmp_path / "a.tif", known).unlike < 10
    as_stored = replace(known, icc=False)
    assert map_unknown(path, tmp_path / "b.tif", as_stored).unlike > 200


def test_the_command(tmp_path, known, write, marked) -> None:
    slide = write(marked)
    line = ["unknown", str(slide), "--like", str(tmp_path / "known"), "-o", str(tmp_path / "m.tif")]
    ended = CliRunner().invoke(main, [*line, "--keep", str(tmp_path / "k.json")])
    assert ended.exit_code == 0, ended.output
    assert "of the tissue is unlike what is known" in ended.output
    assert json.loads((tmp_path / "k.json").read_text())["side"] == SIDE
    again = [
        "unknown",
        str(slide),
        "--like",
        str(tmp_path / "k.json"),
        "-o",
        str(tmp_path / "n.tif"),
    ]
    assert CliRunner().invoke(main, again).exit_code == 0
    first, second = (tifffile.imread(tmp_path / name) for name in ("m.tif", "n.tif"))
    assert np.abs(first.astype(int) - second).max() <= 1
    refused = CliRunner().invoke(main, again)
    assert refused.exit_code == 1
    assert "n.tif: exists already" in refused.stderr
