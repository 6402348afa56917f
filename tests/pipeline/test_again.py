"""Files carry what samples them again, byte for byte, and images made here keep their codes."""

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.pipeline.again import sample_again
from dalle_mini_impl.pipeline.recorded_codes import encode_image
from dalle_mini_impl.sampling.record import CHUNK, RecordError, attach, find_record
from tests.tiny import tiny_run

FP32 = {"precision": "fp32", "compile": "off"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TextToImage.from_pretrained(tiny_run(tmp_path_factory.mktemp("runs") / "tiny"), "cpu")


@pytest.fixture(scope="module")
def results(model):
    """The best of many candidates of one of two captions, with settings of their own."""
    captions = ["a red star", "a blue ring"]
    settings = {"candidates": 6, "num_images": 3, "guidance": 1.7, "temperature": 0.9, "top_k": 11}
    return model(captions, seed=5, negative="a heart", top_p=0.95, **settings, **FP32)[1]


def assert_the_same_file_again(model, result, folder):
    result.save(folder / "image.png")
    sample_again(model, Image.open(folder / "image.png")).save(folder / "again.png")
    assert (folder / "again.png").read_bytes() == (folder / "image.png").read_bytes()


def test_files_are_sampled_again_byte_for_byte(model, results, tmp_path):
    assert len({result.candidate for result in results}) == 3
    for result in results:
        assert_the_same_file_again(model, result, tmp_path)


def test_completed_and_inpainted_files_are_sampled_again(model, results, tmp_path):
    photo = Image.effect_noise((50, 40), 90).convert("RGB")
    assert_the_same_file_again(model, model.complete(photo, "a ring", 2, **FP32)[1], tmp_path)
    mask = Image.new("L", (32, 32))
    mask.paste(255, (9, 3, 20, 13))
    inpainted = model.inpaint(results[0].image, mask, "a ring", seed=3, **FP32)[0]
    assert_the_same_file_again(model, inpainted, tmp_path)


def test_a_result_depends_on_its_codes_alone(model):
    one = model("a red star", seed=8, candidates=1, num_images=1, **FP32)[0]
    many = model("a red star", seed=5, candidates=6, num_images=6, **FP32)
    (same,) = [result for result in many if result.seed == 8]
    assert same.codes == one.codes
    assert same.image.tobytes() == one.image.tobytes()
    assert same.clip_score == one.clip_score
    assert same.log_likelihood == one.log_likelihood


def test_other_weights_and_missing_records_are_refused(model, results, tmp_path_factory):
    with pytest.raises(RecordError, match="no record"):
        sample_again(model, Image.new("RGB", (32, 32)))
    folder = tmp_path_factory.mktemp("runs") / "other"
    run = tiny_run(folder)
    state = {name: value + 0.1 for name, value in model.dalle.state_dict().items()}
    run.save_weights("dalle", state)
    other = TextToImage.from_pretrained(run, "cpu")
    with pytest.raises(RecordError, match="other weights"):
        sample_again(other, results[0].image)
    record = find_record(results[0].image)
    for codes in ((0,) * 9, (10**9,) * 16):
        image = results[0].image.copy()
        attach(image, record.model_copy(update={"codes": codes}))
        with pytest.raises(RecordError, match="does not have"):
            sample_again(model, image)


def test_a_file_keeps_its_codes(model, results, tmp_path):
    for result in results:
        result.save(tmp_path / "image.png")
        with Image.open(tmp_path / "image.png") as image:
            assert model.encode(image).tolist() == list(result.codes)
        assert model.encode(result.image).tolist() == list(result.codes)
        bare = Image.fromarray(np.asarray(result.image))
        assert model.encode(bare).tolist() != list(result.codes)


def test_captions_are_ranked_by_the_codes_of_the_file(model, results, tmp_path):
    results[0].save(tmp_path / "image.png")
    (ranked,) = model.rank_captions(Image.open(tmp_path / "image.png"), [results[0].caption])
    assert ranked.log_likelihood == pytest.approx(results[0].log_likelihood, abs=1e-3)


def test_codes_count_only_where_they_decode_to_the_pixels(model, results):
    tokenizer, image = model.image_tokenizer, results[0].image
    edited = image.copy()
    edited.paste("lime", (0, 0, 8, 8))
    own = tokenizer.encode(to_tensor([edited], 32))[0]
    found = encode_image(tokenizer, edited)
    assert found[0] == own[0]
    assert found[1:].tolist() == list(results[0].codes[1:])

    lying = Image.new("RGB", (32, 32), "lime")
    plain = encode_image(tokenizer, lying)
    lying.info[CHUNK] = image.info[CHUNK]
    assert torch.equal(encode_image(tokenizer, lying), plain)
    record = find_record(image)
    for codes in ((99,) * 16, (0,) * 9, ()):
        attach(lying, record.model_copy(update={"codes": codes}))
        assert torch.equal(encode_image(tokenizer, lying), plain)


def test_kept_rows_keep_their_pixels(model):
    photo = Image.effect_noise((32, 32), 90).convert("RGB")
    for result in model.complete(photo, "a ring", keep_rows=2):
        kept = np.asarray(result.image)[:14]
        assert np.array_equal(kept, np.asarray(photo)[:14])
        assert not np.array_equal(np.asarray(result.image)[16:], np.asarray(photo)[16:])


def test_inpainting_keeps_the_pixels_of_kept_cells(model):
    photo = Image.effect_noise((32, 32), 90).convert("RGB")
    mask = Image.new("L", (32, 32))
    mask.paste(255, (9, 3, 15, 7))
    changed = np.zeros((32, 32), bool)
    changed[:10, 6:18] = True  # the cell that the mask touches, and a seam of two pixels
    for result in model.inpaint(photo, mask, "a ring"):
        difference = (np.asarray(result.image) != np.asarray(photo)).any(axis=2)
        assert not difference[~changed].any()
        assert difference[:8, 8:16].any()
