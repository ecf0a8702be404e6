"""Paths and URLs: which is which, and what of a URL is shown."""

from pathlib import Path

import pytest

from genselfdiff.storage.places import Url, place_of, without_secrets


@pytest.mark.parametrize("address", ["s3://bucket/a.svs", "HTTPS://host/a.svs", "memory:///a.svs"])
def test_what_has_a_scheme_is_a_url(address: str) -> None:
    assert place_of(address) == Url(address)


@pytest.mark.parametrize("path", ["a.svs", "/data/a.svs", "s3:/bucket/a", "c:a.svs", "a//b.svs"])
def test_all_else_is_a_path(path: str) -> None:
    assert place_of(path) == Path(path)


def test_a_file_url_is_a_path() -> None:
    assert place_of("file:///data/my%20slide.svs") == Path("/data/my slide.svs")


def test_parts_of_a_url_are_those_of_a_path() -> None:
    url = Url("https://host/slides/my%20slide.ome.tif?X-Amz-Signature=abc/def")
    assert (url.name, url.stem, url.suffix) == ("my slide.ome.tif", "my slide.ome", ".tif")
    assert url.parent == Url("https://host/slides")
    assert Url("s3://bucket/masks/") / "a.tif" == Url("s3://bucket/masks/a.tif")
    assert Url("s3://b/masks/a.tif").is_below(Url("s3://b/masks/"))
    assert not Url("s3://b/masks2/a.tif").is_below(Url("s3://b/masks"))


def test_a_slash_in_a_name_leads_nowhere() -> None:
    assert Url("https://host/..%2F..%2Fetc%2Fpasswd").name == ".._.._etc_passwd"


def test_secrets_are_not_shown() -> None:
    url = Url("https://user:password@host/a.svs?X-Amz-Signature=secret")
    shown = f"{url} {url!r} {without_secrets(f'cannot get {url.address!r}, really')}"
    assert "https://host/a.svs?..." in shown
    assert "password" not in shown
    assert "secret" not in shown
