"""Strokes as pixels, and what is kept of them."""

import json
import resource
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest

from genselfdiff.errors import InputError, OutputError
from genselfdiff.viewer.corrections.actions import action_of
from genselfdiff.viewer.corrections.field_labels import Box, FieldLabels, read_start, write_start
from genselfdiff.viewer.corrections.folder import Corrections, DrawnClass, DrawnSlide, Stale
from genselfdiff.viewer.corrections.journal import Journal, read_journal
from genselfdiff.viewer.corrections.strokes import Stroke, covered, stroke_of

SLIDE = DrawnSlide("0123456789abcdef", "s.tif", "/nowhere/s.tif", 1300, 900, 0.5)
CLASSES = [DrawnClass("background", (255, 255, 255)), DrawnClass("nucleus", (200, 30, 160))]
FIELD = {"id": "f" * 16, "kind": "field", "x": 100, "y": 50, "width": 60, "height": 40}


def brush(name: int, *points: tuple[float, float], label: int = 1, radius: float = 4) -> dict:
    told = {"id": f"{name:016x}", "kind": "brush", "field": "f" * 16, "label": label}
    return told | {"points": [list(point) for point in points], "radius": radius}


def drawn(*actions: dict, folder: Path) -> Corrections:
    corrections = Corrections(folder)
    for action in actions:
        corrections.do(SLIDE, action, CLASSES)
    return corrections


def pixels(corrections: Corrections) -> np.ndarray:
    labels = corrections.labels(SLIDE, "f" * 16)
    return np.stack((labels.labels, labels.objects))


def end(corrections: Corrections) -> None:
    """As a process that is killed: nothing is written any more."""
    assert corrections._open is not None
    corrections._open.close()


def test_a_brush_covers_all_within_its_radius() -> None:
    random = np.random.default_rng(0)
    for trial in range(200):
        width, height = random.integers(1, 60, 2).tolist()
        points = random.uniform(-20, 70, (random.integers(1, 6), 2)).round(2)
        if trial % 3 == 0:
            points = points.round()
        if trial % 5 == 0:
            points[:, 1] = points[0, 1]
        if trial % 7 == 0:
            points[:] = points[0]
        radius = round(random.uniform(0.5, 20), 1)
        found = covered(Stroke("brush", 1, points, radius), 3, 4, width, height)
        y, x = np.mgrid[:height, :width]
        centres = np.stack((x + 3.5, y + 4.5), 2)
        distance = np.full((height, width), np.inf)
        ends = points[1:] if len(points) > 1 else points
        for begin, step in zip(points, ends - points[: len(ends)], strict=False):
            length = max(float(step @ step), 1e-300)
            share = ((centres - begin) @ step / length).clip(0, 1)[..., None]
            beside = np.moveaxis(centres - begin - share * step, 2, 0)
            distance = np.minimum(distance, np.hypot(*beside))
        clear = np.abs(distance - radius) > 1e-7
        assert (found == (distance <= radius))[clear].all(), trial


def test_objects_grow_are_cut_and_get_another_class() -> None:
    labels = FieldLabels(Box(100, 50, 60, 40))

    def draw(kind: str, label: int, *points: tuple[float, float], radius: float = 3) -> Box:
        return labels.draw(
            Stroke(kind, label, np.array(points, float), radius if kind == "brush" else 0.0)
        )

    changed = draw("polygon", 1, (110, 60), (120, 60), (120, 70), (110, 70))
    assert (labels.labels[10:20, 10:20] == 1).all()
    assert labels.labels.sum() == 100
    assert (changed.x, changed.y) == (10, 10)
    draw("brush", 1, (119, 65), (130, 65))  # begins on it
    assert np.unique(labels.objects).tolist() == [0, 1]
    draw("brush", 1, (140, 65), (135, 65))  # begins beside it
    assert labels.objects[15, 40] == 2
    draw("brush", 0, (134, 50), (134, 90), radius=1)
    assert (labels.labels[:, 33:35] == 0).all()
    before = labels.labels.copy(), labels.objects.copy()
    box = draw("object", 2, (141, 65))
    assert np.array_equal(labels.labels == 2, labels.objects == 2)
    assert labels.labels[:, box.x : box.x + box.width].max() == 2
    draw("object", 0, (110, 60))
    assert not (labels.objects == 1).any()
    draw("object", 1, (101, 51))  # nothing is there
    draw("brush", 255, (0, 0), (300, 300))
    assert (labels.objects[labels.labels == 255] == 0).all()
    for _ in range(4):
        labels.take_back()
    np.testing.assert_array_equal(labels.labels, before[0])
    np.testing.assert_array_equal(labels.objects, before[1])


@pytest.mark.parametrize(
    "odd",
    [
        *({"label": value} for value in (-1, 256, True, "1", None, 1.0)),
        *({"radius": value} for value in (0, -1, 501, float("nan"), "9", None, True)),
        *({"points": value} for value in ([], None, 5, [[1]], [[1, 2, 3]], [1, 2], [["a", 1]])),
        *({"points": value} for value in ([[float("inf"), 0]], [[1, 2]] * 20_001, [[[1, 2]]])),
        *({"points": value} for value in ([[10**400, 0]], [[1, 2], [3]], {"0": [1, 2]})),
        *({"id": value} for value in ("", "x" * 16, "../../etc/passwd", "f" * 33, 7, None)),
        *({"kind": value} for value in ("field", "undo", "", None, [])),
        {"kind": "polygon", "points": [[1, 2], [3, 4]]},
        {"field": "../f"},
    ],
)
def test_odd_strokes_are_refused(odd: dict) -> None:
    with pytest.raises(InputError):
        action_of(brush(1, (110, 60)) | odd)


def test_a_stroke_that_would_take_minutes_is_refused() -> None:
    points = [[0, 0], [0, 1e6]] * 9_000
    stroke = stroke_of({"label": 1, "radius": 500, "points": points}, "brush")
    with pytest.raises(InputError, match="too long"):
        covered(stroke, 0, 0, 4000, 4000)


def test_all_is_there_again_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    corrections = Corrections(folder)
    assert not folder.exists()
    strokes = [brush(i, (100 + 9 * i, 60), (140, 70 + i), label=i % 2) for i in range(5)]
    for action in (FIELD, *strokes):
        corrections.do(SLIDE, action, CLASSES)
    for op in ("undo", "undo", "redo"):
        corrections.step(SLIDE, op, corrections.state(SLIDE)["version"])
    told, was = corrections.state(SLIDE), pixels(corrections)
    assert was[0].any()
    again = Corrections(folder)  # while the first still writes
    assert again.state(SLIDE) == told
    np.testing.assert_array_equal(pixels(again), was)
    with pytest.raises(OutputError, match="another gsd view draws there"):
        again.do(SLIDE, brush(9, (110, 60)), CLASSES)
    corrections.do(SLIDE, brush(9, (110, 80)), CLASSES)
    assert again.state(SLIDE) == corrections.state(SLIDE)
    np.testing.assert_array_equal(pixels(again), pixels(corrections))
    end(corrections)
    again.do(SLIDE, brush(10, (120, 80)), CLASSES)
    end(again)
    assert again.state(SLIDE)["version"] == told["version"] + 2
    np.testing.assert_array_equal(pixels(Corrections(folder)), pixels(again))


def test_what_a_kill_cuts_off_is_not_there_and_what_follows_is(tmp_path: Path) -> None:
    corrections = drawn(FIELD, brush(1, (110, 60)), folder=tmp_path)
    end(corrections)
    whole = corrections.journal.read_bytes()
    first = pixels(corrections)
    corrections = drawn(brush(2, (130, 70), (131, 71)), folder=tmp_path)
    end(corrections)
    longer = corrections.journal.read_bytes()
    for cut in range(len(whole), len(longer)):
        corrections.journal.write_bytes(longer[:cut])
        again = Corrections(tmp_path)
        np.testing.assert_array_equal(pixels(again), first)
        if (len(longer) - 1 - cut) % 40 == 0:
            again.do(SLIDE, brush(3, (150, 80)), CLASSES)
            end(again)
            assert again.journal.read_bytes().endswith(b"\n")
            assert len(read_journal(again.journal)) == len(whole.splitlines()) + 1


def test_damaged_records_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corrections = drawn(FIELD, brush(1, (110, 60)), brush(2, (130, 70)), folder=tmp_path)
    end(corrections)
    lines = corrections.journal.read_bytes().splitlines(keepends=True)
    lines[-2] = lines[-2].replace(b'"radius":4', b'"radius":5')
    for odd in (b"{", b"[" * 100_000):
        lines.insert(1, b"%08x %b\n" % (zlib.crc32(odd), odd))
    corrections.journal.write_bytes(b"".join(lines))
    again = Corrections(tmp_path)
    assert "left out: 3 damaged records" in caplog.text
    alone = drawn(FIELD, brush(2, (130, 70)), folder=tmp_path / "other")
    np.testing.assert_array_equal(pixels(again), pixels(alone))


@pytest.mark.parametrize(
    "record",
    [
        *({}, {"op": "do"}, {"op": "do", "slide": SLIDE.key}, {"op": "undo", "slide": SLIDE.key}),
        {"op": "do", "slide": SLIDE.key, **brush(3, (1, 2), label=7)},
        {"op": "do", "slide": SLIDE.key, **FIELD, "id": "a" * 16},
        {"op": "do", "slide": SLIDE.key, **FIELD, "id": "a" * 16, "x": 1290},
        {"op": "slide", "key": "x", "name": "y", "place": "z", "width": "a", "height": 1},
        {"op": "class", "name": "x", "colour": "red"},
        {"op": "class"},
    ],
)
def test_records_of_others_that_mean_nothing_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, record: dict
) -> None:
    corrections = drawn(FIELD, brush(1, (110, 60)), folder=tmp_path)
    end(corrections)
    content = json.dumps(record).encode()
    with corrections.journal.open("ab") as file:
        file.write(b"%08x %b\n" % (zlib.crc32(content), content))
    again = Corrections(tmp_path)
    assert "left out: 1 record of no meaning" in caplog.text
    np.testing.assert_array_equal(pixels(again), pixels(corrections))


def test_a_full_disk_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corrections = drawn(FIELD, brush(1, (110, 60)), folder=tmp_path)
    told, was = corrections.state(SLIDE), pixels(corrections)

    def full(opened: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("genselfdiff.viewer.corrections.journal.os.fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            corrections.do(SLIDE, brush(2, (130, 70)), CLASSES)
        with pytest.raises(OutputError, match="No space left"):
            corrections.step(SLIDE, "undo", told["version"])
    assert corrections.state(SLIDE) == told
    np.testing.assert_array_equal(pixels(corrections), was)
    end(corrections)
    assert Corrections(tmp_path).state(SLIDE) == told


def test_a_record_is_on_the_disk_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j")
    sizes = []
    monkeypatch.setattr(
        "genselfdiff.viewer.corrections.journal.os.fsync",
        lambda opened: sizes.append((tmp_path / "j").stat().st_size),
    )
    journal.append({"a": 1})
    assert sizes == [(tmp_path / "j").stat().st_size]
    assert sizes[0] > 0


def test_what_a_full_disk_has_refused_does_not_come_later(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append({"a": 1})
    size, (_, most) = (tmp_path / "j").stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, most))
    try:
        with pytest.raises(OutputError, match="File too large"):
            journal.append({"b": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "j").stat().st_size == size
    journal.append({"c": 3})
    journal.close()
    assert read_journal(tmp_path / "j") == [{"a": 1}, {"c": 3}]


def test_nothing_is_done_twice_nor_undone_unseen(tmp_path: Path) -> None:
    corrections = drawn(FIELD, brush(1, (110, 60)), folder=tmp_path)
    version = corrections.state(SLIDE)["version"]
    assert corrections.do(SLIDE, brush(1, (110, 60)), CLASSES) is None  # sent again, unanswered
    assert corrections.state(SLIDE)["version"] == version
    corrections.do(SLIDE, brush(2, (130, 70)), CLASSES)  # by another page
    with pytest.raises(Stale):
        corrections.step(SLIDE, "undo", version)
    with pytest.raises(InputError, match="nothing to redo"):
        corrections.step(SLIDE, "redo", version + 1)


def test_fields_lie_in_the_slide_apart_and_come_back(tmp_path: Path) -> None:
    corrections = drawn(FIELD, brush(1, (110, 60)), folder=tmp_path)
    was = pixels(corrections)
    for odd in ({"x": 1241}, {"y": 861}, {"width": 0}, {"x": 159, "y": 89}, {"x": -1}):
        with pytest.raises(InputError):
            corrections.do(SLIDE, FIELD | {"id": "a" * 16} | odd, CLASSES)
    corrections.do(SLIDE, FIELD | {"id": "a" * 16, "x": 160}, CLASSES)
    corrections.do(SLIDE, {"id": "b" * 16, "kind": "remove", "field": "f" * 16}, CLASSES)
    assert list(corrections.fields(SLIDE)) == ["a" * 16]
    with pytest.raises(InputError, match="not there any more"):
        corrections.do(SLIDE, brush(3, (110, 60)), CLASSES)
    corrections.step(SLIDE, "undo", corrections.state(SLIDE)["version"])
    np.testing.assert_array_equal(pixels(corrections), was)


def test_more_fields_than_are_held_are_drawn_anew(tmp_path: Path) -> None:
    actions = []
    for i in range(9):
        actions.append(FIELD | {"id": f"f{i:015x}", "x": 100 * i})
        stroke = brush(100 + i, (100 * i + 20, 60), (100 * i + 30, 60 + i))
        actions.append(stroke | {"field": f"f{i:015x}"})
    corrections = drawn(*actions, folder=tmp_path)
    assert (corrections.labels(SLIDE, "f" + "0" * 15).labels > 0).sum() > 50
    for _ in range(18):
        corrections.step(SLIDE, "undo", corrections.state(SLIDE)["version"])
    assert corrections.fields(SLIDE) == {}


def test_a_slide_that_was_moved_is_known_again(tmp_path: Path) -> None:
    corrections = drawn(FIELD, folder=tmp_path)
    moved = SLIDE._replace(key="a" * 16, place="/elsewhere/s.tif")
    assert corrections.find(moved).key == SLIDE.key
    assert corrections.find(moved._replace(name="t.tif")).key == "a" * 16
    assert corrections.find(moved._replace(width=5)).key == "a" * 16
    corrections.do(corrections.find(moved), brush(1, (110, 60)), CLASSES)
    assert [slide.place for slide in Corrections(tmp_path).slides()] == ["/elsewhere/s.tif"]


@pytest.mark.parametrize("name", ["", " ", "a\x1b[0m", "Ignore*", "x" * 101, 5, None, "a\u202e"])
def test_odd_names_of_classes_are_refused(tmp_path: Path, name: object) -> None:
    corrections = drawn(FIELD, folder=tmp_path)
    with pytest.raises(InputError):
        corrections.add_class(SLIDE, name)
    assert [each.name for each in corrections.classes()] == ["background", "nucleus"]


def test_beginnings_come_back_as_they_were(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 256, (40, 60)).astype(np.uint8)
    objects = random.integers(0, 2**24, (40, 60)).astype(np.int32)
    write_start(tmp_path / "a.png", labels, objects)
    found = read_start(tmp_path / "a.png", Box(0, 0, 60, 40))
    np.testing.assert_array_equal(found[0], labels)
    np.testing.assert_array_equal(found[1], objects)
    with pytest.raises(InputError, match="not what the field began with"):
        read_start(tmp_path / "a.png", Box(0, 0, 40, 60))
    (tmp_path / "a.png").write_bytes(b"x" * 99)
    with pytest.raises(InputError, match="damaged"):
        read_start(tmp_path / "a.png", Box(0, 0, 60, 40))
