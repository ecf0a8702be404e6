import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genselfdiff.errors import OutputError
from genselfdiff.evaluation import case_pictures
from genselfdiff.evaluation.case_pictures import CasePictures
from genselfdiff.evaluation.evaluate import Case
from genselfdiff.evaluation.outlines_picture import PREDICTION_COLOUR, TRUTH_COLOUR
from genselfdiff.evaluation.page import write_page
from genselfdiff.evaluation.scores import EvaluationReport
from genselfdiff.evaluation.scoring import Prediction, Truth, score_image

NAMES = ("background", "nucleus <1>")


def case(name: str, missed: int, size: tuple[int, int] = (60, 80), mpp: float | None = 0.5) -> Case:
    """A square of which ``missed`` rows are not predicted; nothing at all if that is all."""
    truth = np.zeros(size, np.uint8)
    truth[10:50, 10:50] = missed < 40
    prediction = truth.copy()
    prediction[10 : 10 + missed] = 0
    image = np.full((*size, 3), (225, 170, 200), np.uint8)
    comparison = score_image(name, Truth(truth), Prediction(prediction), 2, mpp=mpp)
    return Case(image, truth, prediction, comparison)


def page_of(tmp_path: Path, cases: list[Case], **settings: object) -> str:
    pictures = CasePictures()
    for each in cases:
        pictures.add(each)
    scores = tuple(each.comparison.scores for each in cases)
    settings = {"instances": True, **settings}
    report = EvaluationReport(Path("private/folder/model.ts"), NAMES, settings, scores)
    write_page(tmp_path / "page.html", report, pictures.addresses)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append
    parser.feed(page.split("</style>")[1])
    return " ".join(" ".join(found).split())


def pictures_in(page: str) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data, name in re.findall(
            r'src="data:image/jpeg;base64,([^"]+)" loading="lazy" alt="Outlines over ([^"]+)"', page
        )
    }


def test_the_worst_come_first_and_those_without_a_score_last(tmp_path):
    cases = [case("good", 2), case("empty", 40), case("bad", 30), case("middling", 15)]
    page = page_of(tmp_path, cases)
    expected = ["bad", "middling", "good", "empty"]
    assert list(pictures_in(page)) == expected
    assert re.findall(r'href="#image\d">(\w+)<', page) == expected
    for place in range(1, 5):
        assert f'id="image{place}"' in page


def test_what_it_tells(tmp_path):
    cases = [case("good", 2), case("bad", 30)]
    text = text_of(page_of(tmp_path, cases))
    scores = [each.comparison.scores.by_class["dice"][1] for each in cases]
    assert text.startswith("Evaluation of model.ts 2 images, 0.0096 million pixels of 0.5 \u00b5m")
    assert f"Dice {np.mean(scores):.4f}" in text
    assert "HD95, \u00b5m" in text
    assert "nucleus <1>" in text
    true, missed = 2 * 40 * 40, 32 * 40
    assert f"{100 * missed / true:.1f} % {missed:,}" in text
    assert "Touching objects taken apart yes" in text
    assert "True objects 1 Predicted objects 1 Matched, IoU above 0.5 0" in text
    assert "grey" not in text
    assert "private" not in text


def test_pictures_have_the_outlines(tmp_path):
    picture = pictures_in(page_of(tmp_path, [case("bad", 20)]))["bad"].astype(int)
    assert picture.shape == (60, 80, 3)
    for place, colour in (((11, 30), TRUTH_COLOUR), ((30, 30), PREDICTION_COLOUR)):
        assert np.abs(picture[place] - colour).max() < 60
    assert np.abs(picture[5, 5] - (225, 170, 200)).max() < 10


def test_large_images_are_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(case_pictures, "_SIDE", 40)
    assert pictures_in(page_of(tmp_path, [case("bad", 20)]))["bad"].shape == (30, 40, 3)


def test_of_many_images_the_worst_and_the_best_have_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(case_pictures, "_WORST", 3)
    monkeypatch.setattr(case_pictures, "_BEST", 2)
    order = np.random.default_rng(0).permutation(12).tolist()
    page = page_of(tmp_path, [case(f"missed{missed}", 2 * missed) for missed in order])
    assert list(pictures_in(page)) == [f"missed{n}" for n in (11, 10, 9, 1, 0)]
    assert all(f"missed{n}" in text_of(page) for n in range(12))
    assert "the worst and the best have pictures" in text_of(page)


def test_images_without_a_score_take_no_place_of_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr(case_pictures, "_WORST", 3)
    monkeypatch.setattr(case_pictures, "_BEST", 2)
    empty = [case(f"empty{number}", 40) for number in range(4)]
    scored = [case(f"missed{missed}", 2 * missed) for missed in range(8)]
    for cases in (empty + scored, scored + empty, scored[:4] + empty + scored[4:]):
        assert list(pictures_in(page_of(tmp_path, cases))) == [
            f"missed{n}" for n in (7, 6, 5, 1, 0)
        ]
    few = pictures_in(page_of(tmp_path, empty + scored[:3]))
    assert list(few)[:3] == ["missed2", "missed1", "missed0"]
    assert len(few) == 5


def test_units_are_those_that_the_numbers_were_given_in(tmp_path):
    cases = [case("good", 2)]
    assert "Smallest object, \u00b5m\u00b2 4" in text_of(page_of(tmp_path, cases, min_area=4))
    unknown = [case("good", 2, mpp=None)]
    assert "Smallest object, px 4" in text_of(page_of(tmp_path, unknown, min_area=4))


def test_it_needs_no_other_file(tmp_path):
    page = page_of(tmp_path, [case("bad", 20)])
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "{{" not in page and "{%" not in page


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(OutputError):
        page_of(tmp_path / "missing", [case("bad", 20)])
