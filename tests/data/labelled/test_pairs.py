"""Pairing, reading masks and what they hold."""

import logging
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from genselfdiff.data.labelled.masks import read_mask
from genselfdiff.data.labelled.pairs import MaskSummary, Pair, find_pairs, inspect_masks, load_pair
from genselfdiff.errors import InputError

Save = Callable[..., Path]


def random_labels(height: int, width: int, classes: int = 4, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)


# Pairing


def test_pairs_share_a_stem_whatever_their_suffix(save: Save, tmp_path: Path) -> None:
    small = np.zeros((4, 4, 3), np.uint8)
    for name in ("images/b.jpg", "images/a.tif", "images/c.ome.tif", "images/.hidden.png"):
        save(name, small)
    for name in ("masks/a.png", "masks/b.tiff", "masks/c.png"):
        save(name, small[..., 0])
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [(pair.stem, pair.image.name, pair.mask.name) for pair in pairs] == [
        ("a", "a.tif", "a.png"),
        ("b", "b.jpg", "b.tiff"),
        ("c", "c.ome.tif", "c.png"),
    ]


def test_unpaired_files_are_named_up_to_five(save: Save, tmp_path: Path) -> None:
    small = np.zeros((4, 4), np.uint8)
    for index in range(8):
        save(f"images/{index}.png", small)
    for name in ("0", "extra"):
        save(f"masks/{name}.png", small)
    with pytest.raises(InputError) as caught:
        find_pairs(tmp_path / "images", tmp_path / "masks")
    message = str(caught.value)
    assert "7 images without a mask (1, 2, 3, 4, 5 and 2 more)" in message
    assert "1 mask without an image (extra)" in message
    assert "\n" not in message


def test_two_files_of_one_stem_are_an_error(save: Save, tmp_path: Path) -> None:
    small = np.zeros((4, 4), np.uint8)
    for name in ("images/a.png", "images/a.jpg", "masks/a.png"):
        save(name, small)
    with pytest.raises(InputError, match=r"a\.jpg and a\.png have the same name"):
        find_pairs(tmp_path / "images", tmp_path / "masks")


def test_missing_and_empty_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match="no image in this folder"):
        find_pairs(tmp_path, tmp_path)


def test_what_is_left_out_of_a_folder_is_told(
    save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = np.zeros((4, 4), np.uint8)
    for name in ("images/a.png", "masks/a.png", "elsewhere/b.png", "images/patient 1/c.png"):
        save(name, small)
    for folder in ("images", "masks"):
        (tmp_path / folder / "b.png").symlink_to(tmp_path / "elsewhere/b.png")
        (tmp_path / folder / "d.png").symlink_to(tmp_path / "nowhere")
        for name in ("e.bmp", ".DS_Store", "._a.png", "Thumbs.db", "notes.txt"):
            (tmp_path / folder / name).write_bytes(b"BM")
    os.mkfifo(tmp_path / "images/f.png")
    with caplog.at_level(logging.WARNING, "genselfdiff"):
        pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.stem for pair in pairs] == ["a", "b"]
    assert "images: left out: 4 other names (d.png, e.bmp, f.png, patient 1): " in caplog.text
    assert "masks: left out: 2 other names (d.png, e.bmp): " in caplog.text


def test_names_pair_in_both_forms_of_unicode(save: Save, tmp_path: Path) -> None:
    small = np.zeros((4, 4), np.uint8)
    save("images/" + unicodedata.normalize("NFD", "Gef\u00e4\u00df.png"), small)
    save("masks/" + unicodedata.normalize("NFC", "Gef\u00e4\u00df.png"), small)
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.stem for pair in pairs] == ["Gef\u00e4\u00df"]


def test_names_that_differ_by_case_or_are_no_utf8_stay_apart(save: Save, tmp_path: Path) -> None:
    small = np.zeros((4, 4), np.uint8)
    names = ("A.png", "a.png", os.fsdecode(b"b\xe4.png"))
    for name in names:
        save(f"images/{name}", small)
        save(f"masks/{name}", small)
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [(p.image.name, p.mask.name) for p in pairs] == [(name, name) for name in names]


# Masks


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_integer_masks_keep_their_values(tmp_path: Path, dtype: type, suffix: str) -> None:
    labels = (random_labels(20, 30).astype(dtype) * 60).astype(dtype)
    path = tmp_path / f"mask.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, labels, compression="zlib")
    elif dtype is np.int32:
        Image.fromarray(labels.astype(np.uint16)).save(path)
    else:
        Image.fromarray(labels).save(path)
    np.testing.assert_array_equal(read_mask(path), labels)


def test_rgb_mask_of_equal_channels_is_read_and_another_refused(save: Save) -> None:
    labels = random_labels(10, 12)
    equal = save("equal.png", np.repeat(labels[..., None], 3, axis=-1))
    np.testing.assert_array_equal(read_mask(equal), labels)
    with pytest.raises(InputError, match=r"colour\.png: .*no label mask"):
        read_mask(save("colour.png", np.stack([labels, labels, 0 * labels], axis=-1)))


def test_planar_tiff_mask_of_equal_channels_is_read(tmp_path: Path) -> None:
    labels = random_labels(20, 32)
    path = tmp_path / "planar.tif"
    tifffile.imwrite(path, np.stack([labels] * 3), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_mask(path), labels)


def test_palette_mask_gives_its_indices(tmp_path: Path) -> None:
    labels = random_labels(10, 12)
    image = Image.fromarray(labels, mode="P")
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 9, 9, 9])
    image.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), labels)


def test_one_bit_mask_gives_zeros_and_ones(tmp_path: Path) -> None:
    labels = random_labels(10, 12, classes=2)
    Image.fromarray(labels.astype(bool)).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png"), labels)


def test_float_and_negative_masks_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((8, 8), np.float32))
    with pytest.raises(InputError, match=r"float\.tif: float32 .*no label mask"):
        read_mask(tmp_path / "float.tif")
    tifffile.imwrite(tmp_path / "signed.tif", np.full((8, 8), -1, np.int16))
    with pytest.raises(InputError, match=r"signed\.tif: negative"):
        read_mask(tmp_path / "signed.tif")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_damaged_mask_is_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mask.{suffix}"
    labels = random_labels(200, 200, 200)
    if suffix == "tif":
        tifffile.imwrite(path, labels, compression="zlib")
    else:
        Image.fromarray(labels).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=rf"mask\.{suffix}: the mask cannot be read") as caught:
        read_mask(path)
    assert "\n" not in str(caught.value)


def test_instance_masks_of_16_bits_become_foreground(pair: Callable[..., Pair]) -> None:
    labels = np.zeros((30, 30), np.uint16)
    labels[5:10, 5:10], labels[20:25, 3:9] = 700, 256
    instances = pair(labels)
    with pytest.raises(InputError, match=r"a\.png: mask values 256, 700 .*--foreground"):
        inspect_masks([instances])
    summary = inspect_masks([instances], True)
    assert summary == MaskSummary(num_classes=2, foreground=True, numbered=True)
    _, loaded = load_pair(instances, num_classes=2, foreground=True)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, labels > 0)
    with pytest.raises(InputError, match=r"mask values 256, 700 .*beyond the 2 classes"):
        load_pair(instances, num_classes=2)
    with pytest.raises(InputError, match="beyond the 256 classes"):
        load_pair(instances)


def test_classes_are_counted_and_values_beyond_them_named(pair: Callable[..., Pair]) -> None:
    labels = random_labels(20, 20, classes=4)
    pairs = [pair(np.minimum(labels, 1), "few"), pair(labels, "many")]
    assert inspect_masks(pairs).num_classes == 4
    assert inspect_masks(pairs, num_classes=6).num_classes == 6
    with pytest.raises(InputError) as caught:
        inspect_masks(pairs, num_classes=2)
    message = str(caught.value)
    assert "many.png: mask values 2, 3 are beyond the 2 classes" in message
    assert "--foreground" in message


def test_instance_numbers_with_an_ignored_one_are_doubted(
    pair: Callable[..., Pair], caplog: pytest.LogCaptureFixture
) -> None:
    instances = np.arange(400, dtype=np.uint16).reshape(20, 20)
    unlabelled = instances.copy()
    unlabelled[0] = 255
    inspect_masks([pair(unlabelled, "framed")], foreground=True, ignore_label=255)
    assert "seem to hold instance numbers" not in caplog.text
    inspect_masks([pair(instances, "many")], foreground=True, ignore_label=255)
    assert "seem to hold instance numbers" in caplog.text


def test_masks_of_0_and_255_are_recognised_over_the_whole_set(
    pair: Callable[..., Pair], caplog: pytest.LogCaptureFixture
) -> None:
    binary = random_labels(10, 10, classes=2) * np.uint8(255)
    pairs = [pair(binary, "a"), pair(np.zeros((10, 10), np.uint8), "b")]
    with caplog.at_level(logging.INFO, "genselfdiff"):
        summary = inspect_masks(pairs, num_classes=2)
    assert "255 is read as class 1" in caplog.text
    assert summary == MaskSummary(num_classes=2, foreground=True, numbered=False)
    with pytest.raises(InputError, match=r"a\.png: mask values 255 .*beyond the 3 classes"):
        inspect_masks(pairs, num_classes=3)
    mixed = [*pairs, pair(np.ones((10, 10), np.uint8), "c")]
    with pytest.raises(InputError, match=r"a\.png: mask values 255"):
        inspect_masks(mixed)


def test_masks_of_0_and_255_beside_others_are_refused_with_how_many(
    pair: Callable[..., Pair],
) -> None:
    binary = random_labels(10, 10, classes=2)
    pairs = [pair(binary, "a"), pair(binary * 255, "b"), pair(binary * 255, "c")]
    for num_classes in (None, 2):
        with pytest.raises(InputError, match=r"b\.png: mask values 255 .*\(so in 2 of 3 masks\)"):
            inspect_masks(pairs, num_classes=num_classes)
    summary = inspect_masks(pairs, foreground=True)
    assert not summary.numbered, "each is of one kind of foreground, and of no numbers"
    for one in pairs:
        np.testing.assert_array_equal(load_pair(one, foreground=True)[1], binary)


def test_masks_of_0_and_255_beside_numbers_of_objects_are_told(
    pair: Callable[..., Pair], caplog: pytest.LogCaptureFixture
) -> None:
    binary = random_labels(10, 10, classes=2)
    numbers = random_labels(10, 10, classes=9)
    assert inspect_masks([pair(binary * 255, "a"), pair(numbers, "b")], foreground=True).numbered
    assert "1 mask with several numbers of objects, and 1 with 0 and 255 only" in caplog.text


def test_an_ignored_value_beside_0_and_255(pair: Callable[..., Pair]) -> None:
    values = random_labels(10, 10, classes=2) * np.uint8(255)
    values[:3] = 127
    ignoring = pair(values)
    summary = inspect_masks([ignoring], ignore_label=127)
    assert summary == MaskSummary(num_classes=2, foreground=True, numbered=False)
    _, loaded = load_pair(ignoring, foreground=True, ignore_label=127)
    np.testing.assert_array_equal(loaded, np.where(values == 127, 127, values // 255))


@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize(("ignore_label", "told"), [(1, "is the class that"), (65535, "0 to 255")])
def test_ignored_values_that_labels_cannot_have(
    pair: Callable[..., Pair], foreground: bool, ignore_label: int, told: str
) -> None:
    values = random_labels(10, 10, classes=2).astype(np.uint16) * 255
    values[:3] = ignore_label
    with pytest.raises(InputError, match=f"--ignore-label {ignore_label}: .*{told}"):
        inspect_masks([pair(values)], foreground, ignore_label=ignore_label)


SOFT = np.zeros((20, 20), np.uint8)
SOFT[4:12, 4:12] = 80
SOFT[5:11, 5:11] = 255


@pytest.mark.parametrize("foreground", [False, True])
def test_soft_edges_are_read_at_half_and_told(
    pair: Callable[..., Pair], foreground: bool, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [pair(SOFT, "a"), pair(SOFT // 255 * 255, "b")]
    summary = inspect_masks(pairs, foreground, num_classes=2)
    assert summary == MaskSummary(num_classes=2, foreground=True, numbered=False)
    assert "1 of 2 masks with soft edges" in caplog.text
    np.testing.assert_array_equal(load_pair(pairs[0], foreground=True)[1], SOFT > 127)


def test_soft_edges_beside_numbers_of_objects_are_refused(pair: Callable[..., Pair]) -> None:
    pairs = [pair(SOFT, "a"), pair(random_labels(20, 20, 9), "b"), pair(SOFT // 255, "c")]
    with pytest.raises(InputError, match=r"a\.png has soft edges, as 1 of 3 .*b\.png numbers"):
        inspect_masks(pairs, foreground=True)


def test_masks_that_are_read_in_an_odd_way_are_told(
    pair: Callable[..., Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = random_labels(10, 10, classes=2)
    pairs = [pair(labels, stem) for stem in "abc"]
    for one in pairs[:2]:
        image = Image.fromarray(1 - labels).convert("P")
        image.putpalette([255, 255, 255, 0, 0, 0])
        image.save(one.mask)
    alpha = Image.fromarray(labels * np.uint8(255))
    Image.merge("LA", [Image.fromarray(labels * 0), alpha]).save(pairs[2].mask)
    summary = inspect_masks(pairs)
    assert summary == MaskSummary(num_classes=2, foreground=True, numbered=False)
    assert "2 of 3 masks: each is read by its colours" in caplog.text
    assert "1 of 3 masks: each is read from its transparency" in caplog.text
    for one in pairs:
        np.testing.assert_array_equal(load_pair(one, foreground=True)[1], labels)


def test_ignored_label_is_no_class_and_stays(pair: Callable[..., Pair]) -> None:
    labels = random_labels(20, 20, classes=3)
    labels[:5] = 255
    ignoring = pair(labels)
    summary = inspect_masks([ignoring], ignore_label=255)
    assert summary.num_classes == 3 and not summary.foreground
    _, loaded = load_pair(ignoring, num_classes=3, ignore_label=255)
    np.testing.assert_array_equal(loaded, labels)
    _, loaded = load_pair(ignoring, foreground=True, ignore_label=255)
    np.testing.assert_array_equal(loaded, np.where(labels == 255, 255, np.minimum(labels, 1)))


def test_masks_without_any_label_are_an_error_when_counting(pair: Callable[..., Pair]) -> None:
    empty = [pair(np.zeros((10, 10), np.uint8))]
    with pytest.raises(InputError, match="nothing is labelled"):
        inspect_masks(empty)
    assert inspect_masks(empty, num_classes=2).num_classes == 2


def test_sizes_must_match(save: Save) -> None:
    image = save("images/a.png", np.zeros((10, 12, 3), np.uint8))
    mask = save("masks/a.png", np.zeros((12, 10), np.uint8))
    with pytest.raises(InputError, match=r"a\.png: 10 x 12 pixels, but .*a\.png has 12 x 10"):
        load_pair(Pair("a", image, mask))
    with pytest.raises(InputError, match=r"a\.png: 10 x 12 pixels, but .*a\.png has 12 x 10"):
        inspect_masks([Pair("a", image, mask)], num_classes=2)
