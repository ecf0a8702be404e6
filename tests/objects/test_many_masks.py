"""Which files the objects of many masks go to."""

import numpy as np
import pytest

from genselfdiff.errors import InputError, OutputError
from genselfdiff.masks import MaskWriter, ProbabilityWriter, PyramidShape
from genselfdiff.objects import write_objects
from genselfdiff.objects.many_masks import plan_objects


@pytest.fixture
def write(tmp_path):
    def make(name):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        names, palette = ("background", "nucleus"), [(0, 0, 0), (255, 0, 0)]
        shape = PyramidShape(20, 20, 0.5)
        with MaskWriter(path, shape, palette=palette, class_names=names) as writer:
            writer.push(np.zeros((1, 20, 20), np.uint8))
        return path

    return make


def test_one_mask_goes_to_the_files_that_are_named(tmp_path, write):
    mask = write("m.tif")
    (files,) = plan_objects([mask], tmp_path / "a.json", None, None)
    assert files == (mask, tmp_path / "a.json", None, None)


def test_of_a_folder_all_that_are_masks_go_to_folders(tmp_path, write):
    masks = [write(f"masks/{name}") for name in ("a.ome.tif", "b.tif")]
    write("masks/.b.tif")
    for name in ("a_instances.tif", "ids.tif"):
        write_objects(masks[1], labels=tmp_path / "masks" / name)
    with ProbabilityWriter(
        tmp_path / "masks" / "p.tif", PyramidShape(20, 20, 0.5), class_names=("a", "b")
    ) as writer:
        writer.push(np.zeros((2, 20, 20), np.uint8))
    (tmp_path / "masks" / "notes.tif").write_text("none")
    first, second = plan_objects([tmp_path / "masks"], None, tmp_path / "t", tmp_path / "l")
    assert [first.mask, second.mask] == masks
    assert first.outputs() == [tmp_path / "t" / "a_objects.csv", tmp_path / "l" / "a_instances.tif"]
    assert (tmp_path / "t").is_dir()


def test_what_cannot_be_meant(tmp_path, write):
    write("one/a.tif")
    write("two/a.tif")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="several masks are called a"):
        plan_objects([tmp_path / "one", tmp_path / "two"], tmp_path / "o", None, None)
    with pytest.raises(InputError, match="none: no masks of gsd segment in this folder"):
        plan_objects([tmp_path / "none"], tmp_path / "o", None, None)
    (tmp_path / "file.geojson").touch()
    with pytest.raises(OutputError, match=r"file\.geojson: cannot be made, as a folder for"):
        plan_objects([tmp_path / "one"], tmp_path / "file.geojson", None, None)
    named = write("one/a_instances.tif")
    with pytest.raises(OutputError, match="is an input of this run"):
        plan_objects([tmp_path / "one", named], None, None, tmp_path / "one")
