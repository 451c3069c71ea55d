"""What reads through the fsspec door, bit for bit, files and a bucket: pandas, pyarrow, datasets, xarray, zarr, DuckDB."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
from swingby import config, sessions
from swingby.base.s3 import S3Base
from swingby.keeper.protocol import Stop

ROWS = 200_000


class Place:
    """A folder of a target.

    Attributes:
        url: chained, of the folder.
        plain: the same for those who take one protocol; with `options`.
        options: of the file system.
    """

    def __init__(self, root, url, options, put):
        self.path = root
        self.url = url
        self.plain = f"swingby://{root}"
        self.options = options
        self._put = put

    def put(self, name, data):
        """Write beneath."""
        self._put(name, data)

    def put_tree(self, folder, name):
        """Write a local directory beneath."""
        for where, _, names in os.walk(folder):
            for one in names:
                with open(os.path.join(where, one), "rb") as file:
                    self.put(f"{name}/{os.path.relpath(os.path.join(where, one), folder)}", file.read())

    @property
    def fs(self):
        return fsspec.filesystem("swingby", **self.options)


@pytest.fixture
def swingby_home(home, monkeypatch):
    """Every session of the test has this home; its keeper ends with it."""
    monkeypatch.setenv("SWINGBY_HOME", home)
    monkeypatch.setenv("SWINGBY_KEEPER_IDLE_EXIT_SECONDS", "1")
    yield
    for session in [one for one in sessions._sessions.values() if one.settings.home == home]:
        session.client.call(Stop(), 10)
        session.client.close()
        sessions.forget(session)


@pytest.fixture
def local(tmp_path, swingby_home):
    root = tmp_path / "remote"

    def put(name, data):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return Place(str(root), f"swingby::file://{root}", {"target_protocol": "file"}, put)


@pytest.fixture
def remote(ceph, bucket, swingby_home, monkeypatch):
    pytest.importorskip("s3fs", reason="fsspec takes s3:// in a chain only where s3fs is installed")
    known = ceph.settings()
    monkeypatch.setenv("AWS_ENDPOINT_URL", known["s3.endpoint"])
    monkeypatch.setenv("AWS_REGION", known["s3.region"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", known["s3.access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", known["s3.secret_access_key"])
    settings = config.load()
    base = S3Base(bucket, settings.s3, settings.fetch)
    yield Place(
        f"{bucket}/remote",
        f"swingby::s3://{bucket}/remote",
        {"target_protocol": "s3"},
        lambda name, data: base.write(f"remote/{name}".encode(), data),
    )
    base.close()


@pytest.fixture(params=["local", "remote"])
def place(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def frame():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    rng = np.random.default_rng(0)
    number = rng.integers(0, 1 << 60, ROWS)
    return pd.DataFrame({"number": number, "value": rng.random(ROWS), "word": [f"w{n % 997}" for n in range(ROWS)]})


@pytest.fixture
def parquet(place, frame):
    """Three parquet files, one of them larger than a chunk."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for number, part in enumerate((frame[:180_000], frame[180_000:190_000], frame[190_000:])):
        place.put(f"table/part={number}/data.parquet", part.to_parquet(index=False, row_group_size=20_000))
    return "table/part=0/data.parquet"


def test_pandas_reads_parquet_and_text(place, frame, parquet):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")

    pd.testing.assert_frame_equal(pd.read_parquet(f"{place.url}/{parquet}"), frame[:180_000])
    some = pd.read_parquet(f"{place.url}/{parquet}", columns=["value"])
    pd.testing.assert_frame_equal(some, frame[:180_000][["value"]])
    small = frame[:1000]
    place.put("small.csv", small.to_csv(index=False).encode())
    place.put("small.json", small.to_json(orient="records", lines=True).encode())
    pd.testing.assert_frame_equal(pd.read_csv(f"{place.url}/small.csv"), small)
    pd.testing.assert_frame_equal(pd.read_json(f"{place.url}/small.json", lines=True), small)
    pd.testing.assert_frame_equal(pd.read_csv(f"{place.plain}/small.csv", storage_options=place.options), small)


def test_pyarrow_reads_a_partitioned_dataset(place, frame, parquet):
    dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed")
    found = dataset.dataset(f"{place.path}/table", filesystem=place.fs, format="parquet", partitioning="hive")
    assert found.count_rows() == ROWS
    table = found.to_table(columns=["number", "value", "word"])
    assert table.to_pandas().equals(frame)
    part = found.to_table(filter=dataset.field("part") == 1, columns=["number"])
    assert part["number"].to_pylist() == frame["number"][180_000:190_000].tolist()


def test_hugging_face_datasets_read_whole_and_as_a_stream(place, frame, parquet, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    files = f"{place.plain}/table/*/data.parquet"
    given = {"storage_options": place.options, "cache_dir": str(tmp_path / "datasets"), "split": "train"}
    whole = datasets.load_dataset("parquet", data_files=files, **given)
    assert len(whole) == ROWS
    assert whole.to_pandas()[["number", "value", "word"]].equals(frame)
    if place.path.startswith("/"):
        return  # as a stream, datasets cuts the first slash of an absolute path behind any protocol but its own file://
    stream = datasets.load_dataset("parquet", data_files=files, streaming=True, **given)
    assert [row["number"] for row in stream.take(3)] == frame["number"][:3].tolist()


@pytest.mark.parametrize("kind", ["csv", "json", "text"])
def test_hugging_face_datasets_read_text(kind, place, frame, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    small = frame[:1000]
    written = {"csv": small.to_csv(index=False), "json": small.to_json(orient="records", lines=True)}
    place.put(f"small.{kind}", written.get(kind, "\n".join(small["word"])).encode())
    given = {"storage_options": place.options, "cache_dir": str(tmp_path / "datasets"), "split": "train"}
    column, wanted = ("text", small["word"]) if kind == "text" else ("number", small["number"])
    for streaming in (False, True)[: 1 if place.path.startswith("/") else 2]:  # see above
        rows = datasets.load_dataset(kind, data_files=f"{place.plain}/small.{kind}", streaming=streaming, **given)
        assert [row[column] for row in rows] == wanted.tolist()


def test_hugging_face_datasets_read_images_by_url(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(2).integers(0, 255, (3, 8, 9, 3), np.uint8)
    for number, one in enumerate(pixels):
        written = io.BytesIO()
        image.fromarray(one).save(written, "png")
        remote.put(f"{number}.png", written.getvalue())
    urls = [f"swingby://s3://{remote.path}/{number}.png" for number in range(3)]
    table = datasets.Dataset.from_dict({"image": urls}).cast_column("image", datasets.Image())
    assert all(np.array_equal(np.asarray(table[number]["image"]), pixels[number]) for number in range(3))


def test_duckdb_reads_and_filters(place, frame, parquet):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    with duckdb.connect() as connection:
        connection.register_filesystem(place.fs)
        files = f"{place.plain}/table/*/data.parquet"
        found = connection.sql(
            f"SELECT number, value, word FROM read_parquet('{files}') ORDER BY filename, file_row_number"
        )
        assert found.df().equals(frame)
        counted = connection.sql(
            f"SELECT count(*), sum(value) FROM read_parquet('{files}') WHERE word = 'w7'"
        ).fetchall()[0]
        chosen = frame[frame["word"] == "w7"]["value"]
        assert counted == (len(chosen), pytest.approx(chosen.sum()))


def test_xarray_and_zarr_read_arrays(place, tmp_path):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    values = np.random.default_rng(1).random((300, 40, 50))
    written = xarray.Dataset({"t": (("time", "y", "x"), values)}, coords={"time": np.arange(300)})
    written.to_zarr(
        tmp_path / "written.zarr", encoding={"t": {"chunks": (50, 40, 50)}}, consolidated=False, zarr_format=3
    )
    place.put_tree(tmp_path / "written.zarr", "grid.zarr")
    found = xarray.open_zarr(f"{place.url}/grid.zarr", consolidated=False)
    assert found.load().identical(written)
    array = zarr.open_array(f"{place.plain}/grid.zarr/t", mode="r", storage_options=place.options)
    assert np.array_equal(array[37:141, 3, ::7], values[37:141, 3, ::7])
