"""docs/huggingface.md by bytes: tables of indices, streams made by a loader, collators with exact resume."""

from __future__ import annotations

import io

import numpy as np
import pytest

datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import swingby
import swingby.torch
from swingby import config, sessions
from swingby.keeper.protocol import Stop

COUNT = 40


def pixels_of(number):
    return np.random.default_rng(number).integers(0, 255, (6, 7, 3), np.uint8)


@pytest.fixture
def pictures(tmp_path, home, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(COUNT):
        image.fromarray(pixels_of(number)).save(folder / f"{number:02}.png")
    settings = config.load({"home": home, "keeper.idle_exit_seconds": 2})
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hugging-face"))
    with swingby.open(str(folder), settings=settings) as found:
        yield found
    client = sessions.session(settings).client
    client.call(Stop(), 10)
    client.close()


def decoded(data):
    return np.array(image.open(io.BytesIO(data)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_table_of_indices_fetches_the_rows_that_are_asked_for(pictures, workers):
    asked = []

    def fetch(rows):
        asked.append(len(rows["index"]))
        return {
            "index": rows["index"],
            "pixels": [torch.from_numpy(decoded(view)) for view in pictures.batch(rows["index"]).views],
        }

    table = datasets.Dataset.from_dict({"index": range(COUNT)}).with_transform(fetch)
    assert np.array_equal(table[7]["pixels"].numpy(), pixels_of(7))
    asked.clear()
    chosen = table.shuffle(seed=1).train_test_split(0.25)["train"]
    loader = torch.utils.data.DataLoader(chosen, batch_size=5, shuffle=True, num_workers=workers)
    seen = []
    for batch in loader:
        seen += batch["index"].tolist()
        for number, found in zip(batch["index"].tolist(), batch["pixels"], strict=True):
            assert np.array_equal(found.numpy(), pixels_of(number))
    assert len(set(seen)) == len(seen) == 30
    assert asked == ([] if workers else [5] * 6)  # a batch is one call


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:Too many dataloader workers")
def test_a_stream_made_by_a_loader_has_each_object_once(pictures, workers):
    def rows(dataset, seed):
        import swingby

        for batch in swingby.Loader(dataset, batch_size=8, shuffle=True, seed=seed):
            for sample in batch:
                yield {"key": sample.key, "data": bytes(sample.data)}

    stream = datasets.IterableDataset.from_generator(rows, gen_kwargs={"dataset": pictures, "seed": 1})
    found = list(torch.utils.data.DataLoader(stream, batch_size=None, num_workers=workers))
    wanted = [key for batch in swingby.Loader(pictures, batch_size=8, shuffle=True, seed=1) for key in batch.keys]
    assert [row["key"] for row in found] == wanted
    assert sorted(wanted) == sorted(pictures.keys)
    for row in found:
        assert np.array_equal(decoded(row["data"]), pixels_of(int(row["key"][:2])))


def test_a_collator_goes_on_exactly(pictures):
    def collate(samples):
        return {"keys": [key for key, _ in samples], "pixels": torch.stack([one for _, one in samples])}

    def decode(sample):
        return sample.key, torch.from_numpy(decoded(sample.data))

    def loader(batch_size):
        given = swingby.torch.Dataset(pictures, transform=decode)
        return swingby.torch.DataLoader(
            given, batch_size=batch_size, shuffle=True, seed=2, num_workers=2, collate_fn=collate
        )

    whole = [key for batch in loader(4) for key in batch["keys"]]
    first = loader(4)
    batches = iter(first)
    keys = [key for _ in range(3) for key in next(batches)["keys"]]
    rest = loader(7)
    rest.load_state_dict(first.state_dict())
    del batches
    for batch in rest:
        keys += batch["keys"]
        for key, found in zip(batch["keys"], batch["pixels"], strict=True):
            assert np.array_equal(found.numpy(), pixels_of(int(key[:2])))
    assert keys == whole
    assert sorted(keys) == sorted(pictures.keys)
