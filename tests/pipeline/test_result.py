"""Results carry what samples them again, show themselves in a notebook and are saved."""

import io

import pytest
from PIL import Image

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.pipeline import TextToImage
from tests.tiny import tiny_run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TextToImage.from_pretrained(tiny_run(tmp_path_factory.mktemp("runs") / "tiny"), "cpu")


@pytest.fixture(scope="module")
def results(model):
    return model(
        "a <red> heart", seed=7, negative="a ring", num_images=2, temperature=0.9, precision="fp32"
    )


def test_a_result_is_sampled_again_from_what_it_carries(model, results):
    for result in results:
        alone = result.sampling.model_copy(update={"num_images": 1, "candidates": 1})
        again = model(
            result.caption, seed=result.seed, negative=result.negative, **alone.model_dump()
        )
        assert again[0].codes == result.codes
        assert result.seed == 7 + result.candidate
        assert result.sampling.temperature == 0.9
        assert result.given is None


def test_a_completed_result_carries_the_codes_that_were_kept(model, results):
    completed = model.complete(results[0].image, "a ring", keep_rows=2)[0]
    kept = completed.given
    assert kept[:8] == completed.codes[:8]
    assert set(kept[8:]) == {-1}


def test_representations_are_short(results):
    assert repr(results) == "Results('a <red> heart', 2 images)"
    assert repr(results[0]).startswith(f"Result('a <red> heart', seed={results[0].seed}, clip ")
    assert len(repr(results[0])) < 80


def test_a_result_shows_itself_in_a_notebook(results):
    shown = Image.open(io.BytesIO(results[0]._repr_png_()))
    assert shown.tobytes() == results[0].image.tobytes()
    page = results[0]._repr_html_()
    assert page.count('src="data:image/png;base64,') == 1
    assert "a &lt;red&gt; heart" in page
    assert f"seed {results[0].seed}" in page


def test_results_of_a_caption_are_a_gallery(results):
    page = results._repr_html_()
    assert page.count('src="data:image/png;base64,') == 2
    assert page.count("a &lt;red&gt; heart") == 1
    assert all(f"seed {result.seed}" in page for result in results)


def test_a_result_is_saved_as_png_only(results, tmp_path):
    results[0].save(tmp_path / "new" / "heart.png")
    with Image.open(tmp_path / "new" / "heart.png") as saved:
        assert saved.format == "PNG"
        assert saved.tobytes() == results[0].image.tobytes()
    with pytest.raises(ConfigError, match=r"heart\.jpg: results are saved as PNG"):
        results[0].save(tmp_path / "heart.jpg")
