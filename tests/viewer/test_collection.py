"""Which masks belong to which slides."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from range_server import RangeServer

from genselfdiff.errors import InputError
from genselfdiff.resumable_file import ResumableFile
from genselfdiff.viewer.collection import collect
from genselfdiff.viewer.library import Library
from genselfdiff.viewer.tiles import TilePlace

Make = Callable[..., Path]


def shown(entries: list) -> dict[str, list[str]]:
    return {entry.slide.name: [layer.name for layer in entry.layers] for entry in entries}


def test_a_slide_and_its_masks(slide: Make, mask: Make, probabilities: Make) -> None:
    entries = collect([slide(), mask(), mask("n.tif", of=""), probabilities()])
    assert shown(entries) == {"s.tif": ["m.tif", "n.tif", "m_probabilities.tif"]}
    assert entries[0].state == "segmented"
    nuclei = int((np.asarray(Image.open(entries[0].layers[0])) == 2).sum())
    assert entries[0].areas["nucleus"] == pytest.approx(nuclei * 0.25 / 1e6)
    assert list(entries[0].areas) == ["stroma", "nucleus"]


def test_masks_find_their_slides_by_the_names_that_they_tell(slide: Make, mask: Make) -> None:
    slides = [slide("slides/a.tif"), slide("slides/b.tif")]
    masks = [mask("masks/1.tif", of="b.tif"), mask("masks/2.tif", of="a.tif")]
    found = {"a.tif": ["2.tif"], "b.tif": ["1.tif"]}
    assert shown(collect([*slides, *masks])) == found
    assert shown(collect([slides[0].parent, masks[0].parent])) == found
    assert shown(collect([masks[0].parent, *slides])) == found


def test_a_mask_of_another_program_belongs_to_the_slide_before_it(
    slide: Make, tmp_path: Path
) -> None:
    other = tmp_path / "other.tif"
    Image.fromarray(np.zeros((900, 1300), np.uint8)).save(other)
    assert shown(collect([slide(), other])) == {"s.tif": ["other.tif"]}


def test_what_each_further_file_is_taken_for_is_said(
    slide: Make, mask: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "genselfdiff")
    collect([slide(), mask()])
    collect([tmp_path])
    assert not caplog.text
    grey, picture, fake = (tmp_path / name for name in ("grey.tif", "p.png", "fake.dcm"))
    Image.fromarray(np.zeros((900, 1300), np.uint8)).save(grey)
    Image.fromarray(np.zeros((900, 1300), np.uint8)).save(picture)
    fake.write_text("none")
    assert set(shown(collect([slide(), grey, picture, fake]))) == {"s.tif", "p.png", "fake.dcm"}
    assert caplog.messages == [
        f"{grey}: taken for a mask of {tmp_path / 's.tif'}",
        f"{picture}, {fake}: taken for slides of their own: a mask is a TIFF of gsd, or of one grey"
        " plane",
    ]


def test_what_corrections_cut_out_is_no_slide_unless_it_is_named(
    slide: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "genselfdiff")
    cut = [slide(f"fields/{name}/a.tif") for name in ("images", "masks", "instances", "starts")]
    slide("images/b.tif")
    slide("fields/c.tif")
    assert len(collect([tmp_path])) == 6
    (tmp_path / "fields/corrections.journal").touch()
    assert set(shown(collect([tmp_path]))) == {"b.tif", "c.tif"}
    assert f"{cut[0].parent}, {cut[2].parent}, {cut[1].parent}, " in caplog.text
    assert "cut out by corrections: left out" in caplog.text
    assert set(shown(collect([tmp_path / "fields"]))) == {"c.tif"}
    assert set(shown(collect([cut[0].parent]))) == set(shown(collect([cut[0]]))) == {"a.tif"}
    (tmp_path / "fields/c.tif").unlink()
    with pytest.raises(InputError, match=r"images, .* cut out by corrections: name the folder"):
        collect([tmp_path / "fields"])


def test_a_mask_alone_finds_the_slide_beside_it(slide: Make, mask: Make) -> None:
    slide()
    assert shown(collect([mask()])) == {"s.tif": ["m.tif"]}


def test_a_folder_of_gsd_segment(slide: Make, mask: Make, tmp_path: Path) -> None:
    done, bad, begun = slide("in/done.tif"), slide("in/bad.tif"), slide("in/begun.tif")
    out = mask("out/done_mask.tif", of="done.tif").parent
    Image.new("RGB", (10, 10)).save(out / "done_mask_overlay.png")
    (out / "summary.csv").write_text(
        "slide,mask,width,height,mpp,tiles,seconds,error\n"
        f"{done},done_mask.tif,1,1,1,1,1,\n{bad},,,,,,,it is <b>damaged</b>\n{begun},,,,,,,\n"
    )
    work = {"slide": "begun.tif 0123456789abcdef"}
    with pytest.raises(KeyboardInterrupt), ResumableFile(out / "begun_mask.tif", work) as file:
        file.stream.write(b"rows")
        file.record({})
        raise KeyboardInterrupt
    (tmp_path / "link").symlink_to(done.parent)
    assert len(collect([out, tmp_path / "link"])) == 3
    entries = collect([out])
    assert shown(entries) == {"done.tif": ["done_mask.tif"], "bad.tif": [], "begun.tif": []}
    assert [entry.state for entry in entries] == ["segmented", "failed", "unfinished"]
    assert entries[1].error == "it is <b>damaged</b>"


def test_what_cannot_be_shown_is_told(slide: Make, mask: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.svs: no such file"):
        collect([tmp_path / "nothing.svs"])
    lonely = mask("masks/m.tif", of="elsewhere.svs")
    with pytest.raises(InputError, match=r"its slide elsewhere\.svs is not beside it: name the"):
        collect([lonely])
    with pytest.raises(InputError, match="does not tell its slide: name the slide before it"):
        collect([mask("masks/m.tif", of="")])
    with pytest.raises(InputError, match=r"one of 2 that are called s\.tif"):
        collect([slide("a/s.tif"), slide("b/s.tif"), mask("masks/m.tif").parent])


def test_a_mask_that_tells_a_path_leads_nowhere_else(mask: Make, tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    with pytest.raises(InputError, match="does not tell its slide"):
        collect([mask("masks/m.tif", of="../secret.png")])


def test_a_mask_of_another_size_is_refused(slide: Make, mask: Make) -> None:
    entries = collect([slide(), mask(labels=np.zeros((900, 1299), np.uint8))])
    with pytest.raises(InputError, match=r"m\.tif: has 1299 x 900 pixels, and its slide"):
        Library(entries).open(0)


def test_masks_of_one_name_are_told_apart_by_their_folders(slide: Make, mask: Make) -> None:
    entries = collect([slide(), mask("old/m.tif"), mask("new/m.tif")])
    names = [layer["name"] for layer in Library(entries).details(0)["layers"]]
    assert names == ["old/m.tif", "new/m.tif"]


def test_a_slide_by_url(slide: Make, mask: Make) -> None:
    path = slide()
    with RangeServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        library = Library(collect([f"{server.add(path)}?key=secret", mask()]))
        told = library.details(0)
        assert [layer["name"] for layer in told["layers"]] == ["m.tif"]
        assert "secret" not in repr((told, library.overview()))
        here = Library(collect([path]))
        for place in (TilePlace(0, 2, 1), TilePlace(3, 0, 0)):
            assert library.slide_tile(0, place) == here.slide_tile(0, place)
        server.shutdown()
