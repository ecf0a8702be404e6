"""From slides to files that QuPath and our importer take."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from genselfdiff.data.importers.qupath import read_qupath
from genselfdiff.data.labelled_folder import IGNORED
from genselfdiff.errors import InputError, OutputError
from genselfdiff.models.model_file import LoadedModel
from genselfdiff.suggesting.field_geojson import files_of, write_fields
from genselfdiff.suggesting.suggest import suggest_fields
from genselfdiff.unknown.learning import known_tissue
from genselfdiff.unknown.unknown_map import map_unknown
from gsd.main import main

SIDE = 200
"""Pixels of a field of 100 um."""


def places(fields) -> list[tuple[int, int]]:
    return [(field.x, field.y) for field in fields]


def test_fields_lie_on_tissue_edge_to_edge_within_the_slide(write, tissue) -> None:
    pixels = tissue(850, 1000, 0)
    pixels[:, 600:] = 245
    fields = suggest_fields([write(pixels)], 99, by="random", size=100)
    assert sorted(places(fields)) == [(x, y) for x in (0, 200, 400) for y in (25, 225, 425, 625)]
    assert {(field.width, field.height) for field in fields} == {(SIDE, SIDE)}


def test_pen_is_left_out(write, tissue, caplog) -> None:
    pixels = tissue(800, 800, 0)
    pixels[:200, :400] = pixels[:200, :400] * (0.3, 0.9, 0.4)
    with caplog.at_level("INFO", "genselfdiff"):
        fields = suggest_fields([write(pixels)], 99, by="variety", size=100)
    assert not {(0, 0), (200, 0)} & set(places(fields))
    assert len(fields) >= 12
    assert "fields left out: unlike known tissue" in caplog.text


def test_the_model_says_where(write, tissue, redness: LoadedModel) -> None:
    pixels = tissue(600, 1000, 0)
    pixels[:, 600:, 0] -= np.minimum(pixels[:, 600:, 0], 82)  # about what the model is unsure of
    fields = suggest_fields([write(pixels)], 2, by="model", model=redness, size=100)
    assert fields[0].x >= 600
    assert fields[0].uncertainty == max(field.uncertainty for field in fields) > 0.2


def test_the_same_seed_gives_the_same_fields_of_many(write, tissue) -> None:
    slides = [write(tissue(800, 800, n), f"s/{n}.tif") for n in range(3)]
    first, again, other = (
        suggest_fields(slides, 5, by="variety", size=100, candidates=12, seed=seed)
        for seed in (0, 0, 1)
    )
    assert places(first) == places(again) != places(other)
    assert len({field.slide for field in suggest_fields(slides, 3, by="random", per_slide=1)}) == 3


def test_the_importer_takes_them_as_frames(tmp_path, write, tissue) -> None:
    slide = write(tissue(600, 600, 0))
    fields = suggest_fields([slide], 2, by="random", size=100)
    (file,) = write_fields(fields, files_of([slide], tmp_path / "slide.geojson"))
    with pytest.raises(InputError, match="has 2 fields, and nothing is annotated inside yet"):
        read_qupath(slide, file)
    content = json.loads(file.read_text())
    drawn = [
        [fields[0].x + 10, fields[0].y + 20],
        [fields[0].x + 50, fields[0].y + 20],
        [fields[0].x + 50, fields[0].y + 60],
    ]
    nucleus = {"type": "Polygon", "coordinates": [[*drawn, drawn[0]]]}
    content["features"].append(
        {
            "type": "Feature",
            "geometry": nucleus,
            "properties": {"classification": {"name": "Nucleus"}},
        }
    )
    file.write_text(json.dumps(content))
    cut = list(read_qupath(slide, file).fields)
    assert [field.image.shape for field in cut] == [(SIDE, SIDE, 3)] * 2
    assert [int(field.classes.max()) for field in cut] == [1, 0]
    assert not any((field.classes == IGNORED).any() for field in cut)


def test_what_qupath_shows_of_a_field(tmp_path, write, tissue) -> None:
    slide = write(tissue(600, 600, 0))
    fields = suggest_fields([slide], 2, by="random", size=100)
    (file,) = write_fields(fields, files_of([slide], tmp_path / "f.geojson"))
    second = json.loads(file.read_text())["features"][1]["properties"]
    assert second["name"] == "field 2"
    assert second["objectType"] == "annotation"
    assert second["classification"]["name"] == "Region*"
    assert second["measurements"]["gsd rank"] == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_name_of_another_file_is_no_folder(tmp_path, count) -> None:
    slides = [tmp_path / f"{n}.svs" for n in range(count)]
    with pytest.raises(InputError, match=r"s3\.txt: fields are written as \.geojson or \.json"):
        files_of(slides, tmp_path / "s3.txt")
    (tmp_path / "s3.txt").mkdir()
    for folder in ("s3.txt", "v1.2", "fields"):
        assert files_of(slides, tmp_path / folder)[slides[0]] == tmp_path / folder / "0.geojson"


def test_files_of_several_slides(tmp_path, write, tissue) -> None:
    slides = [write(tissue(300, 300, n), f"s/{n}.tif") for n in range(2)]
    fields = suggest_fields(slides, 2, by="random", size=100, per_slide=1)
    written = write_fields(fields, files_of(slides, tmp_path / "out"))
    assert sorted(path.name for path in written) == ["0.geojson", "1.geojson"]
    with pytest.raises(OutputError, match="exists already"):
        write_fields(fields, files_of(slides, tmp_path / "out"))
    with pytest.raises(InputError, match=r"f\.geojson: there are 2 slides: name a folder"):
        files_of(slides, tmp_path / "f.geojson")
    twins = [slides[0], write(tissue(300, 300, 5), "t/0.tif")]
    with pytest.raises(InputError, match="two slides have one name"):
        files_of(twins, tmp_path / "out")


def test_bad_requests(write, tissue) -> None:
    glass = write(np.full((600, 600, 3), 245, np.uint8), "glass.tif")
    with pytest.raises(InputError, match="no field of 100 um has enough tissue"):
        suggest_fields([glass], 2, by="random", size=100)
    with pytest.raises(InputError, match="fields by 'chance': must be one of random, variety"):
        suggest_fields([glass], 2, by="chance")
    with pytest.raises(InputError, match="a model has no part in fields by random"):
        suggest_fields([glass], 2, model="nuclei")
    with pytest.raises(InputError, match="count 0 must be more than 0"):
        suggest_fields([glass], 0, by="random")
    with pytest.raises(InputError, match=r"small\.tif: is less than 16 um wide or high"):
        suggest_fields([write(tissue(20, 600, 0), "small.tif")], 2, by="random")


def test_masks_among_the_slides_are_left_out(write, tissue) -> None:
    slide = write(tissue(600, 600, 0), "slides/a.tif")
    map_unknown(slide, slide.parent / "m.tif", known_tissue(slide))
    assert suggest_fields([slide.parent], 2, by="random", size=100)[0].slide == slide
    with pytest.raises(InputError, match="masks of gsd and no slides"):
        suggest_fields([slide.parent / "m.tif"], 2, by="random")


def test_what_is_known_was_read_in_the_same_colours(write, tissue) -> None:
    slide = write(tissue(600, 600, 0))
    for icc in (False, True):
        known = known_tissue(slide, icc=icc)
        assert suggest_fields([slide], 2, by="random", size=100, known=known, icc=icc)
        told = f"what is known was read {'with' if icc else 'without'} --icc"
        with pytest.raises(InputError, match=told):
            suggest_fields([slide], 2, by="random", size=100, known=known, icc=not icc)


def test_the_command(tmp_path, write, tissue) -> None:
    line = ["suggest", str(write(tissue(600, 600, 0))), "--by", "variety", "-n", "2"]
    line += ["--size", "100", "-o", str(tmp_path / "f.geojson")]
    ended = CliRunner().invoke(main, line)
    assert ended.exit_code == 0, ended.output
    rows = ended.stdout.splitlines()
    assert [row.split()[0] for row in rows[1:3]] == ["1", "2"]
    assert rows[3] == str(tmp_path / "f.geojson")
    assert len(json.loads((tmp_path / "f.geojson").read_text())["features"]) == 2
    assert CliRunner().invoke(main, line).exit_code == 1
    refused = CliRunner().invoke(main, [*line, "--model", "nuclei"])
    assert (refused.exit_code, "has no part in --by variety" in refused.output) == (2, True)


def test_what_the_command_says_and_refuses(tmp_path, write, tissue) -> None:
    slide, output = str(write(tissue(600, 600, 0))), str(tmp_path / "f.geojson")
    words = ["suggest", slide, "-n", "1", "--by", "random", "--size", "100", "-o", output]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, found.output
    assert "unsure" not in found.output  # no model was asked
    again = CliRunner().invoke(main, [*words, "--like", slide])
    assert f"{output}: exists already" in again.output  # before anything is read
    known = CliRunner().invoke(main, [*words, "--overwrite", "--like", slide])
    assert "is no file of known tissue: 'gsd unknown --keep' writes one" in known.output


def test_files_of_an_earlier_choice_are_told(tmp_path, write, tissue, caplog) -> None:
    slides = [str(write(tissue(600, 600, seed), name=f"{seed}.tif")) for seed in range(2)]
    words = ["suggest", *slides, "-n", "1", "--by", "random", "--size", "100"]
    output = tmp_path / "fields"
    output.mkdir()
    for seed in range(2):
        (output / f"{seed}.geojson").write_text("{}")
    found = CliRunner().invoke(main, [*words, "-o", str(output), "--overwrite"])
    assert found.exit_code == 0, found.output
    assert caplog.text.count("is of an earlier choice") == 1
