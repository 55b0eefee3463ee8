"""Object stores: whole objects, over nothing, and nothing outside of the folder they are fetched into."""

from pathlib import Path

import fsspec
import pytest

from synccontrol.errors import ConfigError, InputError, OutputError
from synccontrol.io import object_store
from synccontrol.io.object_store import Store


@pytest.fixture
def store() -> Store:
    """Returns an empty folder of the store in memory."""
    fsspec.filesystem("memory").store.clear()
    return Store("memory://bucket/folder/")


def test_urls_are_told_from_paths() -> None:
    assert object_store.url_of(Path("s3://bucket/a b")) == "s3://bucket/a b"
    assert object_store.url_of(Path("memory://x/")) == "memory://x"
    assert object_store.url_of(Path("file:///tmp/x")) == "file://tmp/x"
    assert not any(map(object_store.url_of, (Path("a/b"), Path("/a"), Path("C:/a"), Path("a:b"), Path("../s3:/x"))))


def test_what_is_put_is_fetched_and_nothing_is_written_over(store: Store, tmp_path: Path) -> None:
    store.put(b"one", "a.png")
    store.put(b"two", "deep/b.png")
    assert store.names() == ["a.png", "deep/b.png"]
    store.put(b"one", "a.png")  # the very same
    with pytest.raises(OutputError, match=r"memory://bucket/folder/a\.png exists"):
        store.put(b"other", "a.png")
    store.fetch(store.names(), tmp_path / "whole")
    store.fetch(store.names(), tmp_path / "heads", 2)
    assert (tmp_path / "whole/a.png").read_bytes() == b"one"
    assert (tmp_path / "heads/deep/b.png").read_bytes() == b"tw"
    store.put(b"other", "a.png", overwrite=True)
    Store("memory://bucket/folder/a.png").fetch([""], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"other"


def test_names_that_lead_out_are_refused(store: Store) -> None:
    fsspec.filesystem("memory").store["/bucket/folder/../../x"] = fsspec.implementations.memory.MemoryFile()
    with pytest.raises(InputError, match="cannot be a file here"):
        store.names()


def test_what_cannot_be_reached_is_one_line(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing://x cannot be reached"):
        Store("nothing://x")
    with pytest.raises(InputError, match="memory://bucket/folder cannot be read"):
        store.fetch(["gone"], tmp_path)


def test_texts_name_urls_in_place_of_mirrors(tmp_path: Path) -> None:
    place = object_store.mirror(tmp_path, "s3://bucket/some folder") / "deep" / "a b.png"
    assert object_store.told(f"error: {place}: no picture") == "error: s3://bucket/some folder/deep/a b.png: no picture"
    assert object_store.told("error: a/b.png: no picture") == "error: a/b.png: no picture"


@pytest.mark.slow
def test_s3_by_a_server_that_plays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3").mkdir("bucket")
        store = Store("s3://bucket/folder")
        assert store.names() == []
        store.put(b"one", "deep/a.png")
        store.put(b"one", "deep/a.png")
        with pytest.raises(OutputError, match=r"s3://bucket/folder/deep/a\.png exists"):
            store.put(b"other", "deep/a.png")
        store.fetch(store.names(), tmp_path, 2)
        assert (tmp_path / "deep/a.png").read_bytes() == b"on"
        store.put(b"other", "deep/a.png", overwrite=True)
        store.fetch(store.names(), tmp_path)
        assert (tmp_path / "deep/a.png").read_bytes() == b"other"
    finally:
        server.stop()
