"""The whole way from a slide file to a mask file, with a model whose answer is known."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

import genselfdiff
from genselfdiff.errors import InputError, ModelError, OutputError
from genselfdiff.inference.resample import labels_of
from genselfdiff.inference.tile_grid import TileGrid
from genselfdiff.models.model_file import load_model, save_model
from genselfdiff.models.shipped import catalogue
from genselfdiff.segmenting import one_slide
from genselfdiff.slides import open_slide
from genselfdiff.slides.formats import tiff_level

GREEN = 127.5
"""The darkness model calls class 1 what is darker in green."""


def mask_of(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        return file.pages[0].asarray()


def dark(image: np.ndarray) -> np.ndarray:
    return (image[..., 1] < GREEN).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64), (131, 257), (300, 77)])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_every_pixel_at_the_same_resolution(
    tmp_path, picture, write_slide, darkness_model, size, batch_size
):
    image = picture(*size)
    result = genselfdiff.segment(
        write_slide(image),
        tmp_path / "mask.tif",
        darkness_model,
        device="cpu",
        tissue=False,
        batch_size=batch_size,
    )
    np.testing.assert_array_equal(mask_of(tmp_path / "mask.tif"), dark(image))
    assert (result.height, result.width) == size
    assert result.skipped == 0
    assert result.pixels == {
        "background": int((dark(image) == 0).sum()),
        "nucleus": int(dark(image).sum()),
    }


@pytest.mark.parametrize("slide_mpp", [0.25, 0.2, 1.0])
@pytest.mark.parametrize("size", [(150, 211), (400, 300)])
def test_other_resolutions(tmp_path, picture, write_slide, darkness_model, slide_mpp, size):
    image = picture(*size, size=24)
    genselfdiff.segment(
        write_slide(image, mpp=slide_mpp),
        tmp_path / "mask.tif",
        darkness_model,
        device="cpu",
        tissue=False,
    )
    mask = mask_of(tmp_path / "mask.tif")
    assert mask.shape == size
    # Outlines move by up to a model pixel; discs must neither shift nor be lost at the far edges.
    assert (mask == dark(image)).mean() > 0.95
    for edge in (np.s_[-1:], np.s_[:, -1:]):
        assert (mask[edge] == dark(image)[edge]).mean() > 0.85


def test_resolutions_that_hardly_differ_are_not_resampled(
    tmp_path, picture, write_slide, darkness_model
):
    image = picture(100, 120)
    result = genselfdiff.segment(
        write_slide(image, mpp=0.4963),
        tmp_path / "mask.tif",
        darkness_model,
        device="cpu",
        tissue=False,
    )
    assert result.scale == 1
    np.testing.assert_array_equal(mask_of(tmp_path / "mask.tif"), dark(image))


def test_the_mask_tells_what_it_is(tmp_path, picture, write_slide, darkness_model):
    output = tmp_path / "mask.tif"
    genselfdiff.segment(write_slide(picture(700, 900)), output, darkness_model, device="cpu")
    with tifffile.TiffFile(output) as file:
        page = file.pages[0]
        assert page.shape == (700, 900)
        assert page.is_tiled
        assert page.photometric == tifffile.PHOTOMETRIC.PALETTE
        numerator, denominator = page.tags["XResolution"].value
        assert page.tags["ResolutionUnit"].value == 3
        assert 1e4 * denominator / numerator == pytest.approx(0.5, rel=1e-6)
        assert (page.colormap[:, :2].T >> 8).tolist() == [[0, 0, 0], [255, 0, 0]]
        assert "nucleus" in json.dumps(json.loads(page.description))
        assert len(file.pages) > 1


def test_tiles_without_tissue_are_background(
    tmp_path, picture, write_slide, darkness_model, caplog
):
    image = np.full((600, 800, 3), 244, np.uint8)
    image[200:400, 300:500] = picture(200, 200)
    result = genselfdiff.segment(
        write_slide(image), tmp_path / "mask.tif", darkness_model, device="cpu"
    )
    assert 0 < result.tiles < result.skipped
    assert caplog.text == ""
    np.testing.assert_array_equal(mask_of(tmp_path / "mask.tif"), dark(image))

    blank = write_slide(np.full((300, 200, 3), 244, np.uint8), name="blank.tif")
    result = genselfdiff.segment(blank, tmp_path / "blank_mask.tif", darkness_model, device="cpu")
    assert result.tiles == 0
    assert "blank.tif: no tissue found" in caplog.text
    assert "--no-tissue" in caplog.text
    assert result.pixels["nucleus"] == 0
    assert not mask_of(tmp_path / "blank_mask.tif").any()


def test_tissue_can_be_given(tmp_path, picture, write_slide, darkness_model):
    image = picture(600, 800)
    given = np.zeros((60, 80), np.uint8)
    given[20:30, 40:50] = 1
    Image.fromarray(given).save(tmp_path / "tissue.png")
    options = {"device": "cpu", "tissue": tmp_path / "tissue.png"}
    result = genselfdiff.segment(
        write_slide(image), tmp_path / "mask.tif", darkness_model, **options
    )
    assert 0 < result.tiles <= 16
    mask = mask_of(tmp_path / "mask.tif")
    np.testing.assert_array_equal(mask[200:300, 400:500], dark(image)[200:300, 400:500])
    assert not mask[:100].any()
    with pytest.raises(InputError, match=r"tissue\.png: no such file"):
        (tmp_path / "tissue.png").unlink()
        genselfdiff.segment(
            tmp_path / "slide.tif", tmp_path / "other.tif", darkness_model, **options
        )


@pytest.mark.parametrize("slide_mpp", [0.5, 0.27, 0.8])
@pytest.mark.parametrize("tissue", [True, False])
def test_a_region_is_what_the_whole_slide_shows_there(
    tmp_path, picture, write_slide, conv_net, info, slide_mpp, tissue
):
    save_model(conv_net(kernel=5), info(3), tmp_path / "model.ts")
    image = picture(500, 700)
    image[:260, 150:420] = 244
    slide = write_slide(image, mpp=slide_mpp)
    options = {"device": "cpu", "tissue": tissue, "overwrite": True, "precision": "float32"}
    options["model"] = tmp_path / "model.ts"
    whole = genselfdiff.segment(slide, tmp_path / "whole.tif", **options)
    expected = mask_of(tmp_path / "whole.tif")
    for x, y, w, h in [(0, 0, 700, 500), (130, 201, 60, 70), (699, 499, 1, 1), (333, 0, 21, 500)]:
        part = genselfdiff.segment(slide, tmp_path / "m.tif", region=(x, y, w, h), **options)
        mask = mask_of(tmp_path / "m.tif")
        inside = mask[y : y + h, x : x + w].copy()
        np.testing.assert_array_equal(inside, expected[y : y + h, x : x + w])
        mask[y : y + h, x : x + w] = 0
        assert not mask.any()
        assert mask.shape == (part.height, part.width) == (500, 700)
        assert sum(part.pixels.values()) == w * h
        assert part.tiles <= whole.tiles
    assert part.tiles + part.skipped < whole.tiles


def test_a_region_costs_what_it_holds(tmp_path, picture, write_slide, darkness_model, monkeypatch):
    image = np.full((4000, 6000, 3), 244, np.uint8)
    image[3000:3128, 3000:3128] = picture(128, 128)
    slide = write_slide(image)
    read = []
    decode = tiff_level._Segments.decode
    monkeypatch.setattr(
        tiff_level._Segments, "decode", lambda *args: read.append(args[1:]) or decode(*args)
    )
    result = genselfdiff.segment(
        slide, tmp_path / "m.tif", darkness_model, device="cpu", region=(3000, 3000, 128, 128)
    )
    assert result.tiles <= 16
    assert len(read) <= 16
    np.testing.assert_array_equal(mask_of(tmp_path / "m.tif"), dark(image))


@pytest.mark.parametrize("region", [(0, 0, 65, 64), (-1, 0, 9, 9), (64, 0, 1, 1), (0, 60, 4, 5)])
def test_regions_outside(tmp_path, picture, write_slide, darkness_model, region):
    slide = write_slide(picture(64, 64))
    with pytest.raises(InputError, match=r"slide\.tif: the region .* not inside its 64 x 64 pix"):
        genselfdiff.segment(slide, tmp_path / "m.tif", darkness_model, device="cpu", region=region)
    assert not (tmp_path / "m.tif").exists()


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-3, 5)])
def test_regions_of_nothing(tmp_path, picture, write_slide, darkness_model, width, height):
    told = rf"slide\.tif: the region 1,2,{width},{height} is {width} pixels wide and {height} high"
    region = (1, 2, width, height)
    slide = write_slide(picture(64, 64))
    with pytest.raises(InputError, match=told):
        genselfdiff.segment(slide, tmp_path / "m.tif", darkness_model, device="cpu", region=region)


def test_mask_bytes_do_not_depend_on_workers(
    tmp_path, picture, write_slide, conv_net, info, monkeypatch
):
    save_model(conv_net(kernel=5), info(3, mpp=0.7), tmp_path / "model.ts")
    slide = write_slide(picture(300, 420))
    masks = []
    before = torch.get_num_threads()
    for workers in (1, 3):
        monkeypatch.setattr(one_slide.Predictor, "_parallelism", lambda self, n=workers: (n, 1))
        output = tmp_path / f"mask{workers}.tif"
        genselfdiff.segment(slide, output, tmp_path / "model.ts", device="cpu")
        masks.append(output.read_bytes())
    assert masks[0] == masks[1]
    assert len(np.unique(mask_of(output))) > 1
    assert torch.get_num_threads() == before


def test_model_without_mpp_needs_none(tmp_path, picture, write_slide, conv_net, info):
    save_model(conv_net(), info(3, mpp=None), tmp_path / "model.ts")
    result = genselfdiff.segment(
        write_slide(picture(90, 80), mpp=None),
        tmp_path / "mask.tif",
        tmp_path / "model.ts",
        device="cpu",
    )
    assert result.mpp is None
    assert result.areas is None
    assert mask_of(tmp_path / "mask.tif").shape == (90, 80)


def test_mpp_that_the_file_contradicts_is_told(
    tmp_path, picture, write_slide, darkness_model, caplog
):
    slide = write_slide(picture(90, 80), mpp=0.5)
    options = {"device": "cpu", "overwrite": True}
    genselfdiff.segment(slide, tmp_path / "mask.tif", darkness_model, mpp=0.505, **options)
    assert caplog.text == ""
    result = genselfdiff.segment(slide, tmp_path / "mask.tif", darkness_model, mpp=0.25, **options)
    assert result.mpp == 0.25
    assert "slide.tif: its file says 0.5 um/px, but 0.25 was given" in caplog.text


def test_mpp_can_be_given(tmp_path, picture, write_slide, darkness_model):
    slide = write_slide(picture(90, 80), mpp=None)
    with pytest.raises(InputError, match="--mpp"):
        genselfdiff.segment(slide, tmp_path / "mask.tif", darkness_model, device="cpu")
    assert not (tmp_path / "mask.tif").exists()
    result = genselfdiff.segment(
        slide, tmp_path / "mask.tif", darkness_model, device="cpu", mpp=0.25, tissue=False
    )
    assert result.scale == pytest.approx(2)
    assert result.areas["background"] + result.areas["nucleus"] == pytest.approx(
        90 * 80 * 0.25**2 / 1e6
    )
    assert f"{result.pixels['nucleus'] * 0.25**2:.0f} um2" in result.summary()


def test_overlay(tmp_path, picture, write_slide, darkness_model):
    slide = write_slide(picture(200, 300))
    result = genselfdiff.segment(
        slide, tmp_path / "mask.tif", darkness_model, device="cpu", overlay=True
    )
    assert result.files.overlay == tmp_path / "mask_overlay.png"
    with Image.open(result.files.overlay) as overlay:
        assert overlay.size == (300, 200 + 22), "below it a scale bar and the class"
    with pytest.raises(OutputError, match=r"overlay\.png.*--overwrite"):
        genselfdiff.segment(
            slide,
            tmp_path / "other.tif",
            darkness_model,
            device="cpu",
            overlay=tmp_path / "mask_overlay.png",
        )
    with pytest.raises(OutputError, match=r"x\.tif: must end in \.png"):
        genselfdiff.segment(
            slide, tmp_path / "other.tif", darkness_model, overlay=tmp_path / "x.tif"
        )
    assert not (tmp_path / "other.tif").exists()


def test_targets_that_cannot_be(tmp_path, picture, write_slide, darkness_model):
    slide = write_slide(picture(64, 64))
    output = tmp_path / "mask.tif"
    output.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        genselfdiff.segment(slide, output, darkness_model, device="cpu")
    assert output.read_text() == "precious"
    (tmp_path / "link.tif").symlink_to(slide)
    (tmp_path / "twin.tif").hardlink_to(slide)
    darkness_model.rename(tmp_path / "model.tif")
    darkness_model.symlink_to(tmp_path / "model.tif")
    for read in (slide, tmp_path / "link.tif", tmp_path / "twin.tif", tmp_path / "model.tif"):
        for overwrite in (True, False):
            with pytest.raises(OutputError, match="is an input of this run"):
                genselfdiff.segment(slide, read, darkness_model, device="cpu", overwrite=overwrite)
    for name in ("mask", "mask.svs", "mask.png"):
        with pytest.raises(OutputError, match=r"must end in \.tif or \.tiff"):
            genselfdiff.segment(slide, tmp_path / name, darkness_model, device="cpu")
    with pytest.raises(OutputError, match="does not exist"):
        genselfdiff.segment(slide, tmp_path / "no" / "mask.tif", darkness_model, device="cpu")
    with pytest.raises(OutputError, match="holds an input of this run"):
        genselfdiff.segment(slide, tmp_path, darkness_model, device="cpu")
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        genselfdiff.segment(slide, tmp_path / "folder.tif", darkness_model, device="cpu")
    genselfdiff.segment(slide, output, darkness_model, device="cpu", overwrite=True)
    assert mask_of(output).shape == (64, 64)
    assert mask_of(slide).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size": 100}, "multiple of 8"),
        ({"overlap": 0.9}, "between 0 and 0.5"),
        ({"batch_size": 0}, "at least 1"),
        ({"precision": "float8"}, "must be one of"),
    ],
)
def test_options_out_of_range(tmp_path, picture, write_slide, darkness_model, options, message):
    slide = write_slide(picture(64, 64))
    with pytest.raises(InputError, match=message):
        genselfdiff.segment(slide, tmp_path / "mask.tif", darkness_model, device="cpu", **options)
    assert not (tmp_path / "mask.tif").exists()


def test_model_from_the_environment(tmp_path, picture, write_slide, darkness_model, monkeypatch):
    slide = write_slide(picture(64, 64))
    monkeypatch.delenv("GSD_MODEL", raising=False)
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    with pytest.raises(ModelError, match=r"--model.*gsd export"):
        genselfdiff.segment(slide, tmp_path / "mask.tif")
    monkeypatch.setenv("GSD_MODEL", str(darkness_model))
    genselfdiff.segment(slide, tmp_path / "mask.tif", device="cpu")
    assert (tmp_path / "mask.tif").exists()


def test_nothing_is_left_when_it_breaks_off(
    tmp_path, picture, write_slide, darkness_model, monkeypatch
):
    slide = write_slide(picture(400, 400))
    files = set(tmp_path.iterdir())
    calls = 0

    def interrupted(probabilities: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return labels_of(probabilities)

    monkeypatch.setattr(one_slide, "labels_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        genselfdiff.segment(slide, tmp_path / "mask.tif", darkness_model, device="cpu")
    assert set(tmp_path.iterdir()) == files


def test_a_slide_that_ends_too_early(tmp_path, picture, write_slide, darkness_model):
    slide = write_slide(picture(800, 800))
    with tifffile.TiffFile(slide) as file:
        offset = file.pages[0].dataoffsets[-1]
    with slide.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 64)
    files = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"slide\.tif"):
        genselfdiff.segment(
            slide, tmp_path / "mask.tif", darkness_model, device="cpu", tissue=False
        )
    assert set(tmp_path.iterdir()) == files


def test_a_model_that_fails_on_tiles(tmp_path, picture, write_slide, info):
    class Fragile(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x[:, :2].reshape(x.shape[0], 2, 16, 16)

    save_model(Fragile(), info(), tmp_path / "model.ts")
    with pytest.raises(ModelError, match=r"model\.ts: the model failed") as caught:
        genselfdiff.segment(
            write_slide(picture(100, 100)),
            tmp_path / "mask.tif",
            tmp_path / "model.ts",
            device="cpu",
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["numbers", "memory"])
def test_a_model_that_runs_out_of(tmp_path, picture, write_slide, info, kind):
    class Excessive(nn.Module):
        def __init__(self, memory: bool) -> None:
            super().__init__()
            self.memory = memory

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            if self.memory and x.shape[2] > 16:
                x = x + torch.empty(1 << 46).sum()
            return x[:, :2] / 0

    save_model(Excessive(kind == "memory"), info(), tmp_path / "model.ts")
    slide = write_slide(picture(100, 100))
    told = {
        "memory": (InputError, "cpu has too little memory for 1 tile of 64 x 64.*--batch-size"),
        "numbers": (ModelError, r"model\.ts: its output in bfloat16 is not a number.*--precision"),
    }
    with pytest.raises(told[kind][0], match=told[kind][1]):
        genselfdiff.segment(
            slide, tmp_path / "m.tif", tmp_path / "model.ts", device="cpu", precision="bfloat16"
        )
    assert not (tmp_path / "m.tif").exists()


def test_progress_is_shown_when_asked(tmp_path, picture, write_slide, darkness_model, capsys):
    slide = write_slide(picture(200, 200))
    options = {"device": "cpu", "overwrite": True}
    genselfdiff.segment(slide, tmp_path / "mask.tif", darkness_model, **options)
    assert capsys.readouterr().err == ""
    genselfdiff.segment(slide, tmp_path / "mask.tif", darkness_model, progress=True, **options)
    assert "slide.tif" in capsys.readouterr().err


class Delicate(nn.Module):
    """Classes by the green channel, brightest first; bfloat16 cannot tell ``last`` and 0 apart."""

    def __init__(self, thresholds: tuple[float, ...], last: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(1000.0))
        self.thresholds = thresholds
        self.last = last

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        green = x[:, 1:2]
        logits = [torch.zeros_like(green)]
        for i, threshold in enumerate(self.thresholds):
            logit = (threshold - green) * 20**i
            if i + 1 == self.last:
                logit = (logit + self.offset) - self.offset
            logits.append(1000 * logit)
        return torch.cat(logits, dim=1)


class TestPrecision:
    def test_bfloat16_where_labels_agree(self, darkness_model, picture, monkeypatch):
        monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda _: True)
        predictor = one_slide.Predictor(load_model(darkness_model, "cpu"), "auto")
        pixels = torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None]
        first = predictor(pixels)
        predictor.choose_precision([pixels])
        assert predictor.precision == "bfloat16"
        second = predictor(pixels)
        assert second.dtype == torch.float32
        assert (first != second).any()

    def test_float32_where_they_do_not(self, tmp_path, info, picture, monkeypatch):
        save_model(Delicate((0.0,), 1), info(), tmp_path / "model.ts")
        monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda _: True)
        predictor = one_slide.Predictor(load_model(tmp_path / "model.ts", "cpu"), "auto")
        pixels = torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None]
        predictor.choose_precision([pixels])
        assert predictor.precision == "float32"

    @pytest.mark.parametrize("empty", [100, 600])
    def test_float32_if_the_difference_comes_late(
        self, tmp_path, info, picture, write_slide, monkeypatch, empty
    ):
        """The first tiles hold no foreground: of 400 pixels' width 8 in every 48 rows."""
        save_model(Delicate((0.0,), 1), info(), tmp_path / "model.ts")
        monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda _: True)
        image = picture(empty + 200, 400)
        image[:empty] = (225, 160, 200)
        result = genselfdiff.segment(
            write_slide(image), tmp_path / "mask.tif", tmp_path / "model.ts", device="cpu"
        )
        assert result.precision == "float32"
        np.testing.assert_array_equal(mask_of(tmp_path / "mask.tif"), dark(image))

    def test_float32_if_a_rare_class_would_vanish(self, tmp_path, info, picture, monkeypatch):
        save_model(Delicate((0.0, -0.93), 2), info(3), tmp_path / "model.ts")
        monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda _: True)
        predictor = one_slide.Predictor(load_model(tmp_path / "model.ts", "cpu"), "auto")
        image = picture(256, 256)
        common = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        image[100:120, 100:120] = 0  # 0.6 % of the pixels
        rare = torch.from_numpy(image).permute(2, 0, 1)[None]
        assert [len(predictor(pixels).argmax(1).unique()) for pixels in (common, rare)] == [2, 3]
        assert predictor(rare).argmax(1).unique().tolist() == [0, 1, 2]
        predictor.choose_precision([common, rare])
        assert predictor.precision == "float32"

    def test_float32_if_bfloat16_gives_no_numbers(self, tmp_path, info, picture, monkeypatch):
        class Narrow(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(1))

            def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
                if x.dtype == torch.bfloat16:
                    x = x / 0
                return torch.cat((x[:, :1], -x[:, :1]), dim=1) * self.weight

        save_model(Narrow(), info(), tmp_path / "model.ts")
        monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda _: True)
        predictor = one_slide.Predictor(load_model(tmp_path / "model.ts", "cpu"), "auto")
        predictor.choose_precision([torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None]])
        assert predictor.precision == "float32"

    def test_float32_where_bfloat16_is_slow(self, darkness_model, picture, monkeypatch):
        monkeypatch.setattr("genselfdiff.inference.predictor.has_fast_bfloat16", lambda _: False)
        predictor = one_slide.Predictor(load_model(darkness_model, "cpu"), "auto")
        predictor.choose_precision([torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None]])
        assert predictor.precision == "float32"

    def test_as_asked(self, tmp_path, darkness_model, picture, write_slide):
        for precision in ("float32", "bfloat16"):
            result = genselfdiff.segment(
                write_slide(picture(100, 100)),
                tmp_path / f"{precision}.tif",
                darkness_model,
                device="cpu",
                precision=precision,
            )
            assert result.precision == precision


@pytest.mark.parametrize(
    ("threads", "expected"), [(1, (1, 1)), (7, (7, 1)), (8, (8, 1)), (12, (6, 2)), (64, (8, 8))]
)
def test_no_processor_is_left_without_work(darkness_model, monkeypatch, threads, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    predictor = one_slide.Predictor(load_model(darkness_model, "cpu"), "float32")
    assert predictor._parallelism() == expected


def test_the_sample_is_spread_over_the_tissue(tmp_path, picture, write_slide):
    with open_slide(write_slide(picture(300, 500))) as slide:
        view = slide.at_mpp(None)
        grid = TileGrid.of(view, 64, 0.25, range(300), range(500))
        everything = [read()[0] for read in grid.batches(view, 1)]
        assert len(everything) == grid.tiles > 20
        places = []
        for (tile,) in grid.sample(view, 5):
            places.append(next(i for i, one in enumerate(everything) if torch.equal(one, tile)))
        assert np.diff(places, prepend=0, append=grid.tiles).max() <= grid.tiles / 4
        some = dataclasses.replace(
            grid, wanted=((), (2,), (), (0, 1), *((),) * (len(grid.wanted) - 4))
        )
        shown = [read()[0] for read in some.batches(view, 1)]
        assert [tile.tolist() for (tile,) in some.sample(view, 9)] == [t.tolist() for t in shown]
