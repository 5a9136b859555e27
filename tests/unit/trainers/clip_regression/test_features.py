"""Features of frozen encoders: computed once, the same as without, for whoever has the same rows and weights."""

import errno
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support import small_training
from support.broken_pictures import break_on_decoding
from support.local_context import LocalFoldContext
from support.small_training import TINY, train_small

from trainers.clip_regression.config import DataConfig, FeaturesConfig
from trainers.clip_regression.inputs.features import _Source
from trainers.clip_regression.train import train_fold
from trainers.interface import DataError
from trainers.storage.row_blocks import BLOCK_ROWS

FROZEN = replace(TINY.model, freeze=True, allow_random_frozen=True, token_dropout=0.0, dropout=0.1)
UNCACHED = FeaturesConfig(cache=False)


@pytest.fixture
def data(small_frame, write_data):
    """With pictures that are not their own mirror images."""
    root = write_data(small_frame, small_frame.drop(columns="views").head(7))
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(path)
    return root


def train(tmp_path, root, name="place", **sections):
    return train_small(tmp_path, root, name, **{"model": FROZEN, **sections})


def assert_equal(first, second):
    for key, predictions in first.predictions.items():
        np.testing.assert_array_equal(predictions.prediction_z, second.predictions[key].prediction_z)


def read_blocks(tmp_path):
    return {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*.arrow")}


def test_predictions_equal_those_of_encoders_that_run_each_time(data, tmp_path):
    cached, uncached = train(tmp_path, data), train(tmp_path, data, "uncached", features=UNCACHED)
    assert cached.prepared
    assert not uncached.prepared or uncached.prepared[0][0] == "decoding"
    for key, predictions in uncached.predictions.items():
        np.testing.assert_allclose(cached.predictions[key].prediction_z, predictions.prediction_z, atol=1e-5)
    for ours, theirs in zip(cached.steps, uncached.steps, strict=True):
        assert ours[1]["train/loss_step"] == pytest.approx(theirs[1]["train/loss_step"], abs=1e-5)
    counts = [context.rows[0][1] for context in (cached, uncached)]
    assert counts[0] == counts[1]
    assert {k: v.tolist() for k, v in cached.shared["frozen_encoders"].items()} == {
        k: v.tolist() for k, v in uncached.shared["frozen_encoders"].items()
    }


def test_encoders_that_have_run_give_the_memory_of_a_shared_gpu_back(data, tmp_path, monkeypatch):
    """With a card that is faked once they have run."""
    release, emptied = _Source.release, []

    def release_on_card(source):
        assert source.clip is not None
        source.context = SimpleNamespace(device="cuda:0")
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(source.clip))
        release(source)

    monkeypatch.setattr(_Source, "release", release_on_card)
    train(tmp_path, data)
    assert emptied == [None]


def test_another_seed_and_another_run_compute_nothing(data, tmp_path):
    train(tmp_path, data)
    blocks = read_blocks(tmp_path)
    again = train(tmp_path, data, "again", seed=5)
    assert not again.prepared
    assert read_blocks(tmp_path) == blocks


def test_a_changed_row_computes_its_block_and_no_other_row_changes_a_bit(tmp_path, small_frame, write_data):
    frame = small_frame.iloc[np.arange(3 * BLOCK_ROWS) % 24].reset_index(drop=True)
    frame = frame.assign(id=[f"r{row:04d}" for row in range(len(frame))])
    frame["title"] = frame["id"] + " title"
    data = write_data(frame, pictures=False)
    texts = DataConfig(root=str(data), train_pictures="")
    first = train(tmp_path, data, data=texts)
    before = read_blocks(tmp_path)
    frame.loc[BLOCK_ROWS + 9, "title"] = "another title"
    write_data(frame, pictures=False)
    second = train(tmp_path, data, "second", data=texts)
    assert second.prepared == [("encoding", BLOCK_ROWS, BLOCK_ROWS)]
    assert before.items() <= read_blocks(tmp_path).items()
    for key, predictions in first.predictions.items():
        is_same = predictions.prediction_z == second.predictions[key].prediction_z
        assert [predictions.ids[row] for row in np.flatnonzero(~is_same)] == [f"r{BLOCK_ROWS + 9:04d}"]


def test_the_number_of_threads_changes_no_bit(data, tmp_path, monkeypatch):
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(LocalFoldContext, "num_threads", threads)
        (tmp_path / str(threads)).mkdir()
        train(tmp_path / str(threads), data)
        found.append({path.name: content for path, content in read_blocks(tmp_path / str(threads)).items()})
    assert found[0] == found[1]
    assert len(found[0]) == 5  # pictures, mirrored pictures and texts; of the test rows pictures and texts


def test_without_further_views_rows_are_not_augmented(data, tmp_path):
    plain = train(tmp_path, data, features=FeaturesConfig(num_views=1))
    flipped = train(tmp_path, data, "flipped")
    assert plain.steps != flipped.steps
    assert sum(total for _, _, total in plain.prepared[-1:]) == 2 * (24 + 7)
    assert flipped.prepared[-1][2] == 24  # the mirrored ones alone were missing


def test_texts_have_versions_with_other_tokens_blanked(data, tmp_path):
    model = replace(FROZEN, token_dropout=0.5)
    texts = DataConfig(root=str(data), train_pictures="")
    two = train(tmp_path, data, model=model, data=texts)
    four = train(tmp_path, data, "four", model=model, data=texts, features=FeaturesConfig(num_views=4))
    assert two.prepared[-1][2] == 2 * 24 + 7
    assert four.prepared[-1][2] == 2 * 24  # the third and the fourth version
    assert two.steps != four.steps
    plain = train(tmp_path, data, "plain", data=texts)
    assert not plain.prepared


def test_a_picture_that_breaks_on_decoding_is_told_of_in_every_run(data, tmp_path):
    break_on_decoding(data / "train_val", "v03")
    for name in ("first", "second"):
        with pytest.raises(DataError, match=r"train_val.csv: id 'v03': its picture cannot be decoded.*on_bad_row=drop"):
            train(tmp_path, data, name)
    kept = train(tmp_path, data, "kept", data=DataConfig(root=str(data), on_bad_row="drop"))
    assert [(table, row_id, done) for table, row_id, _, done in kept.bad_rows] == [
        ("train_val.csv", "v03", "mean colour")
    ]


def test_a_picture_that_cannot_be_read_now_is_not_taken_for_a_broken_one(data, tmp_path, monkeypatch):
    read = Path.read_bytes

    def refuse_pictures(path):
        if path.suffix == ".jpg":
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse_pictures)
    with pytest.raises(OSError, match="Stale file handle"):
        train(tmp_path, data)
    monkeypatch.undo()
    assert not read_blocks(tmp_path)


def test_a_picture_that_is_changed_while_the_run_works_is_refused(data, tmp_path, monkeypatch):
    def change_then_take(*arguments):
        (data / "train_val" / "v05.jpg").write_bytes((data / "train_val" / "v06.jpg").read_bytes())
        return train_fold(*arguments)

    monkeypatch.setattr(small_training, "train_fold", change_then_take)
    with pytest.raises(DataError, match="the picture of id 'v05' was changed while the run works"):
        train(tmp_path, data)
    assert not read_blocks(tmp_path)


@pytest.mark.parametrize("name", ["encoders.json", "weights.json", "weights.safetensors"])
def test_encoders_that_are_torn_are_written_again(data, tmp_path, name):
    first = train(tmp_path, data)
    (torn,) = (tmp_path / "cache").rglob(name)
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    assert_equal(first, train(tmp_path, data, "second"))
    assert torn.read_bytes() == whole


def test_other_weights_have_other_features(data, tmp_path):
    import open_clip
    from safetensors.torch import save_file

    from trainers.clip_regression.network.encoders import build_clip

    for number, value in enumerate((0.5, 1.5)):
        clip = build_clip(open_clip.get_model_config("tiny-clip"))
        clip.text.ln_final.weight.data.fill_(value)
        path = tmp_path / "weights.safetensors"
        save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, path)
        model = replace(FROZEN, pretrained=str(path))
        context = train(tmp_path, data, f"weights{number}", model=model)
        assert context.prepared
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2
