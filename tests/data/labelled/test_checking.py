import os

import numpy as np
import pytest
from PIL import Image

from genselfdiff.data.labelled.checking import check_folders
from genselfdiff.errors import InputError


@pytest.fixture
def folders(tmp_path):
    """Images a, b and c of 40 x 30 pixels with masks of classes 0 and 2."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for number, name in enumerate("abc"):
        pixels = np.random.default_rng(number).integers(0, 255, (30, 40, 3), np.uint8)
        labels = np.zeros((30, 40), np.uint8)
        labels[:3] = 2
        Image.fromarray(pixels).save(images / f"{name}.png")
        Image.fromarray(labels).save(masks / f"{name}.png")
    return images, masks


def test_nothing_is_wrong(folders, tmp_path):
    found = check_folders(*folders, sheet=tmp_path / "sheet.png")
    assert not found.problems
    assert found.pairs == 3
    assert found.sizes == {(40, 30): 3}
    assert found.pixels == {0: 3 * 27 * 40, 2: 3 * 3 * 40}
    assert found.images_with == {0: 3, 2: 3}
    assert "3 of 40 x 30" in found.summary()
    assert "value 2: 10.00 % of the pixels, in 3 images" in found.summary()
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    first = np.asarray(Image.open(folders[0] / "a.png"))
    np.testing.assert_array_equal(sheet[5:30, :40], first[5:])  # no class there
    assert (sheet[:3, :40] != first[:3]).any()


def test_all_that_is_wrong_is_told(folders, tmp_path):
    images, masks = folders
    (masks / "a.png").write_bytes(b"no picture")
    Image.new("L", (7, 5)).save(masks / "b.png")
    (images / "d.png").write_bytes((images / "c.png").read_bytes())
    Image.new("L", (40, 30)).save(masks / "d.png")
    Image.new("L", (40, 30)).save(masks / "e.png")
    (images / "f.png").write_bytes((images / "a.png").read_bytes())
    found = check_folders(images, masks)
    told = "\n".join(found.problems)
    for problem in (
        "a.png: the mask cannot be read",
        f"{masks / 'b.png'}: 7 x 5 pixels, but {images / 'b.png'} has 40 x 30",
        f"{images / 'c.png'}, {images / 'd.png'}: the same picture",
        f"{masks / 'd.png'}: holds nothing but 0",
        f"{masks / 'e.png'}: has no image",
        f"{images / 'f.png'}: has no mask",
    ):
        assert problem in told
    assert len(found.problems) == 6
    assert found.pairs == 2
    assert found.summary().endswith("6 problems")


def test_masks_that_are_stored_in_several_ways_are_told(folders, tmp_path):
    images, masks = folders
    labels = np.zeros((30, 40), np.uint8)
    labels[5:20, 5:20] = 1
    Image.fromarray(labels).save(masks / "a.png")
    Image.fromarray(labels * 255).save(masks / "b.png")
    labels[4, 5:20] = 30
    Image.fromarray(np.where(labels == 1, 255, labels)).save(masks / "c.png")
    Image.fromarray(np.arange(3600, dtype=np.uint8).reshape(30, 40, 3)).save(images / "d.png")
    inverse = Image.fromarray(1 - np.minimum(labels, 1)).convert("P")
    inverse.putpalette([255, 255, 255, 0, 0, 0])
    inverse.save(masks / "d.png")
    found = check_folders(images, masks, sheet=tmp_path / "sheet.png")
    told = "\n".join(found.problems)
    for problem in (
        "1 hold 0 and 1 (",
        "2 hold 0 and 255 (",
        f"{masks / 'c.png'}: has soft edges",
        f"{masks / 'd.png'}: is read by its colours",
    ):
        assert problem in told
    assert len(found.problems) == 3
    assert found.pixels[255] == 2 * 15 * 15 + 16 * 15


def test_pixels_that_nobody_labelled_are_no_other_kind_of_mask(folders):
    images, masks = folders
    labels = np.zeros((30, 40), np.uint8)
    labels[5:20, 5:20] = 1
    Image.fromarray(labels).save(masks / "a.png")
    Image.fromarray(labels * 255).save(masks / "b.png")
    labels[20:] = 255
    Image.fromarray(labels).save(masks / "c.png")
    assert not check_folders(images, masks).problems


def test_a_name_that_is_no_utf8_can_be_drawn(folders, tmp_path):
    for folder in folders:
        (folder / "a.png").rename(folder / os.fsdecode(b"sl\xe4ide.png"))
    assert not check_folders(*folders, sheet=tmp_path / "sheet.png").problems
    assert (tmp_path / "sheet.png").exists()


def test_numbers_of_instances(folders):
    images, masks = folders
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(masks / "a.png")
    assert (
        "1200 values in the masks: numbers of instances?" in check_folders(images, masks).summary()
    )


def test_numbers_beyond_the_colours_have_colours_in_turn(folders, tmp_path):
    images, masks = folders
    labels = np.zeros((30, 40), np.uint16)
    labels[:, 10:20], labels[:, 20:30] = 300, 301
    Image.fromarray(labels).save(masks / "a.png")
    Image.new("RGB", (40, 30), "white").save(images / "a.png")
    check_folders(images, masks, sheet=tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (sheet[15, 15] != sheet[15, 25]).any()
    assert (sheet[15, 5] == 255).all()


def test_masks_of_foreground(folders, tmp_path):
    images, masks = folders
    for name, value in (("a", 1), ("b", 255), ("c", 7)):
        labels = np.zeros((30, 40), np.uint8)
        labels[:15] = value
        Image.fromarray(labels).save(masks / f"{name}.png")
    assert len(check_folders(images, masks).problems) == 1
    found = check_folders(images, masks, foreground=True, sheet=tmp_path / "sheet.png")
    assert not found.problems
    assert found.pixels == {0: 3 * 15 * 40, 1: 3 * 15 * 40}


def test_folders_of_other_images(folders, tmp_path):
    (tmp_path / "masks").rename(tmp_path / "old")
    (tmp_path / "masks").mkdir()
    for name in "xyz":
        Image.new("L", (40, 30)).save(tmp_path / f"masks/{name}.png")
    found = check_folders(tmp_path / "images", tmp_path / "masks")
    assert found.problems == [
        f"{tmp_path / 'images'} and {tmp_path / 'masks'}: no image has a mask of its name"
    ]


def test_a_folder_that_is_not_there(folders, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        check_folders(folders[0], tmp_path / "none")
