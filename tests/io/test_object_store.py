"""Object stores: atomic uploads that replace nothing, and downloads that stay inside their folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from synccontrol.errors import ConfigError, InputError, OutputError
from synccontrol.io import object_store
from synccontrol.io.object_store import Store


@pytest.fixture
def store() -> Store:
    """Return an empty folder of the in-memory store."""
    fsspec.filesystem("memory").store.clear()
    return Store("memory://bucket/folder/")


class FakeFilesystem:
    """An fsspec file system with a cached listing, whose methods can be made to fail.

    Attributes:
        objects: content by path.
        failures: the error that a method raises, by the name of the method.
        calls: the names of the called methods.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failures: dict[str, Exception] = {}
        self.calls: list[str] = []
        self._listing: list[str] | None = None

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failures:
            raise self.failures[name]

    def invalidate_cache(self) -> None:
        self._listing = None

    def _cached_listing(self) -> list[str]:
        if self._listing is None:
            self._listing = list(self.objects)
        return self._listing

    def find(self, root: str) -> list[str]:
        self._call("find")
        return [path for path in self._cached_listing() if path == root or path.startswith(f"{root}/")]

    def exists(self, path: str) -> bool:
        self._call("exists")
        return path in self._cached_listing()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        self._call("cat_file")
        return self.objects[path][start:end]

    def pipe_file(self, path: str, content: bytes, mode: str) -> None:
        self._call("pipe_file")
        if mode == "create" and path in self.objects:
            raise FileExistsError(path)
        self.objects[path] = content


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeFilesystem:
    """Return the file system of every store in this test, whose root has a trailing slash."""
    filesystem = FakeFilesystem()
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (filesystem, url.removeprefix("fake://") + "/"))
    return filesystem


def test_urls_are_recognised_in_paths() -> None:
    assert object_store.url_of(Path("s3://bucket/a b")) == "s3://bucket/a b"
    assert object_store.url_of(Path("memory://x/")) == "memory://x"
    assert object_store.url_of(Path("file:///tmp/x")) == "file://tmp/x"
    assert object_store.url_of(Path("abc+d.e-9://x")) == "abc+d.e-9://x"
    assert object_store.url_of(Path("s3://bucket/two\nlines")) == "s3://bucket/two\nlines"
    local = ("a/b", "/a", "C:/a", "c:/a", "a:b", "../s3:/x", "s3:x", "3s://x")
    assert not any(object_store.url_of(Path(path)) for path in local)


def test_upload_and_download_without_overwriting(store: Store, tmp_path: Path) -> None:
    store.put(b"one", "a.png")
    store.put(b"two", "deep/b.png")
    assert store.names() == ["a.png", "deep/b.png"]
    store.put(b"one", "a.png")  # identical content
    with pytest.raises(OutputError, match=r"memory://bucket/folder/a\.png exists; name another"):
        store.put(b"other", "a.png")
    store.fetch(store.names(), tmp_path / "whole")
    store.fetch(store.names(), tmp_path / "heads", 2)
    assert (tmp_path / "whole/a.png").read_bytes() == b"one"
    assert (tmp_path / "heads/deep/b.png").read_bytes() == b"tw"
    store.put(b"other", "a.png", overwrite=True)
    Store("memory://bucket/folder/a.png").fetch([""], tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes() == b"other"


def test_a_single_object_has_the_empty_name(store: Store) -> None:
    store.put(b"one", "a.png")
    assert Store("memory://bucket/folder/a.png").names() == [""]
    Store("memory://bucket/folder/b.png").put(b"two", "")
    assert store.names() == ["a.png", "b.png"]


def test_a_single_object_has_no_trailing_slash(fake: FakeFilesystem, tmp_path: Path) -> None:
    store = Store("fake://bucket/a.png")
    store.put(b"one", "")
    assert fake.objects == {"bucket/a.png": b"one"}
    store.fetch([""], tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes() == b"one"


def test_downloads_create_all_missing_folders(fake: FakeFilesystem, tmp_path: Path) -> None:
    fake.objects = {"bucket/deep/er/a.png": b"one"}
    Store("fake://bucket").fetch(["deep/er/a.png"], tmp_path / "new")
    assert (tmp_path / "new/deep/er/a.png").read_bytes() == b"one"


def test_names_are_sorted(fake: FakeFilesystem) -> None:
    fake.objects = {"bucket/b.png": b"", "bucket/a/c.png": b"", "bucket/a.png": b"", "bucketful/d.png": b""}
    assert Store("fake://bucket").names() == ["a.png", "a/c.png", "b.png"]


def test_names_outside_the_folder_are_refused(store: Store) -> None:
    fsspec.filesystem("memory").store["/bucket/folder/../../x"] = fsspec.implementations.memory.MemoryFile()
    with pytest.raises(InputError, match="cannot be a local file"):
        store.names()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_names_that_are_no_local_files_are_refused(fake: FakeFilesystem, name: str) -> None:
    fake.objects = {"bucket/good.png": b"", f"bucket/{name}": b""}
    with pytest.raises(InputError, match=r"^fake://bucket holds '.*', which cannot be a local file; rename it$"):
        Store("fake://bucket/").names()


@pytest.mark.parametrize("name", ["..a", "a..b/c.png", "...", "a b"])
def test_names_with_dots_are_local_files(fake: FakeFilesystem, name: str) -> None:
    fake.objects = {f"bucket/{name}": b""}
    assert Store("fake://bucket/").names() == [name]


def test_trailing_slashes_do_not_matter(fake: FakeFilesystem) -> None:
    store = Store("fake://bucket/folder//")
    assert store.url == "fake://bucket/folder"
    store.put(b"one", "a.png")
    assert fake.objects == {"bucket/folder/a.png": b"one"}


def test_listings_are_never_stale(fake: FakeFilesystem) -> None:
    store = Store("fake://bucket")
    assert store.names() == []
    fake.objects["bucket/a.png"] = b"theirs"  # by another process, so the cached listing is stale
    with pytest.raises(OutputError, match="exists"):
        store.put(b"mine", "a.png")
    fake.objects["bucket/b.png"] = b""
    assert store.names() == ["a.png", "b.png"]


def test_unknown_urls_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^nothing://x cannot be reached \(.+\); pip install 'synccontrol\[s3\]'"):
        Store("nothing://x")


@pytest.mark.parametrize(
    "error", [ImportError("Install gcsfs\nto access  it"), ValueError("Install gcsfs to access it")]
)
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(url: str) -> None:
        raise error

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises(ConfigError, match=r"^gs://x cannot be reached \(Install gcsfs to access it\); pip install"):
        Store("gs://x")


def test_failed_downloads_are_input_errors(store: Store, fake: FakeFilesystem, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^memory://bucket/folder cannot be read \("):
        store.fetch(["gone"], tmp_path)
    fake.failures["find"] = PermissionError("not\nallowed")
    with pytest.raises(InputError, match=r"^fake://bucket cannot be read \(not allowed\)$"):
        Store("fake://bucket").names()
    fake.failures["cat_file"] = TimeoutError()
    with pytest.raises(InputError, match=r"^fake://bucket cannot be read \(TimeoutError\)$"):
        Store("fake://bucket").fetch(["a.png"], tmp_path)


def test_a_failed_upload_is_an_output_error(fake: FakeFilesystem) -> None:
    fake.failures["pipe_file"] = PermissionError("read only")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"^fake://bucket/a\.png cannot be written \(read only\)$"):
            Store("fake://bucket").put(b"one", "a.png", overwrite)


def test_a_failed_overwrite_is_never_accepted(fake: FakeFilesystem) -> None:
    fake.objects["bucket/a.png"] = b"one"
    fake.failures["pipe_file"] = PermissionError("read only")
    with pytest.raises(OutputError, match="cannot be written"):
        Store("fake://bucket").put(b"one", "a.png", overwrite=True)
    assert "exists" not in fake.calls


def test_a_store_that_does_not_respond_is_an_output_error(fake: FakeFilesystem) -> None:
    fake.objects["bucket/a.png"] = b"one"
    fake.failures["exists"] = TimeoutError()
    with pytest.raises(OutputError, match=r"^fake://bucket/a\.png cannot be written \("):
        Store("fake://bucket").put(b"one", "a.png")


def test_one_failed_download_fails_all(fake: FakeFilesystem, tmp_path: Path) -> None:
    fake.objects = {f"bucket/{number}.png": b"one" for number in range(20)}
    with pytest.raises(InputError, match="cannot be read"):
        Store("fake://bucket").fetch([*map("{}.png".format, range(20)), "gone.png"], tmp_path)
    assert len(list(tmp_path.iterdir())) == 20


def test_downloads_run_at_once_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, fake: FakeFilesystem, tmp_path: Path
) -> None:
    limits: list[int] = []
    executor: Callable[..., Any] = object_store.ThreadPoolExecutor
    monkeypatch.setattr(object_store, "ThreadPoolExecutor", lambda limit: limits.append(limit) or executor(limit))
    fake.objects = {"bucket/a.png": b"one"}
    Store("fake://bucket").fetch(["a.png"], tmp_path)
    assert limits == [object_store.FETCH_THREADS]


def test_messages_name_urls_instead_of_mirror_paths(tmp_path: Path) -> None:
    path = object_store.mirror_folder(tmp_path, "s3://bucket/some folder") / "deep" / "a b.png"
    url = "s3://bucket/some folder/deep/a b.png"
    for template in ("error: {}: no image", "({})", "'{}' and \"{}\"", "{}\n{}", "{}"):
        assert object_store.replace_mirror_paths(template.replace("{}", str(path))) == template.replace("{}", url)
    folder = object_store.mirror_folder(tmp_path, "s3://bucket/some folder")
    for quotation in ("'{}'%20", '"{}"%20', "{} %20", "{}/%20"):  # only the mirror's own name is unquoted
        expected = quotation.replace("{}", "s3://bucket/some folder")
        assert object_store.replace_mirror_paths(quotation.replace("{}", str(folder))) == expected
    assert object_store.replace_mirror_paths("error: a/b.png: no image") == "error: a/b.png: no image"
    assert object_store.mirror_folder(tmp_path, "s3://bucket/a").parent == tmp_path


@pytest.mark.slow
def test_s3_with_a_mock_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
