import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from genselfdiff.errors import GsdError, InputError
from genselfdiff.segmenting.output_files import OutputFiles
from genselfdiff.segmenting.report.summary_csv import SummaryTable
from genselfdiff.segmenting.result import SegmentResult


@pytest.fixture
def result(tmp_path: Path, make_result: Callable[..., SegmentResult]) -> SegmentResult:
    return make_result(slide=tmp_path / "a.tif", files=OutputFiles(tmp_path / "a_mask.tif"))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_a_row_for_each_slide(tmp_path: Path, result: SegmentResult) -> None:
    summary = SummaryTable(tmp_path)
    summary.add(result.slide, result, None)
    bad = Path('b, "odd".svs')
    summary.add(bad, None, GsdError(f"{bad}: damaged:\nreally"))
    first, second = rows(tmp_path)
    assert first == {
        **{"slide": str(result.slide), "mask": "a_mask.tif", "width": "4000", "height": "3000"},
        **{"mpp": "0.5", "tiles": "70", "seconds": "12.3", "error": ""},
        **{"background pixels": "9000000", "background mm2": "2.250000"},
        **{"nucleus pixels": "3000000", "nucleus mm2": "0.750000", "nucleus objects": "1200"},
    }
    assert list(first)[-1] == "error"
    assert (second["slide"], second["error"]) == (str(bad), f"{bad}: damaged:\\x0areally")
    assert second["nucleus pixels"] == second["mask"] == ""


def test_rows_of_earlier_runs_are_kept(tmp_path: Path, result: SegmentResult) -> None:
    SummaryTable(tmp_path).add(result.slide, result, None)
    SummaryTable(tmp_path).add(Path("b.svs"), None, GsdError("b.svs: no"))
    other = replace(result, slide=Path("c.svs"), pixels={"background": 5, "fat": 6}, mpp=None)
    SummaryTable(tmp_path).add(other.slide, other, None)
    SummaryTable(tmp_path).add(Path("b.svs"), replace(result, slide=Path("b.svs")), None)
    first, second, third = rows(tmp_path)
    assert first["nucleus pixels"] == second["nucleus pixels"] == "3000000"
    assert (second["slide"], second["error"]) == ("b.svs", "")
    assert (third["fat pixels"], third["fat mm2"], third["nucleus pixels"]) == ("6", "", "")
    assert {p.name for p in tmp_path.iterdir()} == {"summary.csv"}


def test_a_slide_has_one_row_however_its_path_is_written(
    tmp_path: Path, result: SegmentResult
) -> None:
    summary = SummaryTable(tmp_path)
    summary.add(Path("slides/a.tif"), None, GsdError("damaged"))
    summary.add(Path("slides/a.tif"), replace(result, slide=Path("slides/a.tif")), None)
    summary.add(Path("slides/b.tif"), None, GsdError("damaged"))
    summary.add(result.slide, replace(result, finished_before=True), None)
    summary.add(Path("/data/slides/b.tif"), None, GsdError("damaged"))
    assert [row["slide"] for row in rows(tmp_path)] == [str(result.slide), "/data/slides/b.tif"]
    summary.add(Path("other/a.tif"), None, GsdError("exists already"))
    summary.add(Path("another/a.tif"), None, GsdError("exists already"))
    assert len(rows(tmp_path)) == 4, "of other slides of that name"


def test_what_an_earlier_run_has_made_keeps_its_time_and_objects(
    tmp_path: Path, result: SegmentResult
) -> None:
    summary = SummaryTable(tmp_path)
    summary.add(result.slide, result, None)
    before = (tmp_path / "summary.csv").read_text()
    again = replace(result, finished_before=True, seconds=0.1, objects=None)
    summary.add(result.slide, again, None)
    assert (tmp_path / "summary.csv").read_text() == before
    other = replace(again, slide=Path("a.tif"))
    summary.add(other.slide, other, None)
    (row,) = rows(tmp_path)
    assert (row["slide"], row["seconds"], row["nucleus objects"]) == ("a.tif", "12.3", "1200")
    summary.add(result.slide, result, None)
    summary.add(result.slide, replace(again, finished_before=False), None)
    assert rows(tmp_path)[0]["seconds"] == "0.1"


@pytest.mark.parametrize(
    "foreign",
    [b"x", b"", b"name,value\na,1\n", b"slide\na,b,c\n", b"slide,error\na,\n", b"\xff\xfe\x00"],
)
def test_a_table_of_others_is_left_alone(tmp_path: Path, foreign: bytes) -> None:
    path = tmp_path / "summary.csv"
    path.write_bytes(foreign)
    with pytest.raises(InputError, match=r"summary\.csv: .* move it elsewhere"):
        SummaryTable(tmp_path)
    assert path.read_bytes() == foreign


def test_what_cannot_be_read_is_told(tmp_path: Path, result: SegmentResult) -> None:
    summary = SummaryTable(tmp_path)
    (tmp_path / "summary.csv").mkdir()
    with pytest.raises(InputError, match=r"summary\.csv: is a folder"):
        summary.add(result.slide, result, None)


def test_a_table_that_a_spreadsheet_has_saved_goes_on(
    tmp_path: Path, result: SegmentResult
) -> None:
    path = tmp_path / "summary.csv"
    SummaryTable(tmp_path).add(result.slide, result, None)
    head, row = path.read_text(encoding="utf-8").splitlines()
    saved = f"{head},comment\n{row},blurred\n".replace(",", ";")
    path.write_bytes(b"\xef\xbb\xbf" + saved.replace("\n", "\r\n").encode())
    SummaryTable(tmp_path).add(Path("=b.svs"), None, GsdError("no"))
    SummaryTable(tmp_path).add(Path("=b.svs"), None, GsdError("still no"))
    first, second = rows(tmp_path)
    assert (first["slide"], first["comment"], first["error"]) == (str(result.slide), "blurred", "")
    assert (second["slide"], second["error"]) == ("'=b.svs", "still no")


def test_two_runs_at_once_lose_no_row(tmp_path: Path, result: SegmentResult) -> None:
    def add(run: int) -> None:
        for i in range(10):
            slide = Path(f"{run}-{i}.svs")
            SummaryTable(tmp_path).add(slide, replace(result, slide=slide), None)

    with ThreadPoolExecutor() as pool:
        list(pool.map(add, range(4)))
    assert len(rows(tmp_path)) == 40
