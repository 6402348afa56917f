"""The stages in order: from data to a run that samples, each naming the next command."""

import dataclasses
import shutil
import signal

import pytest
from safetensors.torch import load_file

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import load_clip
from dalle_mini_impl.runs.stages import STAGES
from dalle_mini_impl.runs.weights import RunError
from dalle_mini_impl.training import transformer_stage
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.interruption import StopRequests
from dalle_mini_impl.training.run_stages import (
    FUNCTIONS,
    missing_stages,
    next_command,
    run_stages,
)
from tests.tiny import TWO_STEPS, tiny_experiment


def create(path, **sections):
    captions = {"vocabulary": None, "vocabulary_size": 300, "context": 12}
    return RunFolder.create(path, tiny_experiment(TWO_STEPS, captions=captions, **sections))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = create(tmp_path_factory.mktemp("finished") / "run")
    run_stages(run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A finished run of one's own."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def test_clip_stops_at_once_where_all_captions_are_alike(run, monkeypatch, capsys):
    store = StageContext(run).store
    uncaptioned = dataclasses.replace(store, captions=[("",)] * len(store))
    monkeypatch.setattr(StageContext, "store", uncaptioned)
    run_stages(run, "clip", resume=False)
    assert "CLIP has nothing to distinguish" in capsys.readouterr().out
    assert [record["step"] for record in run.metrics() if record["stage"] == "clip"][-1] == 1


def test_every_stage_of_the_table_has_a_function():
    assert list(FUNCTIONS) == list(STAGES)


def stages_done(said):
    return [line.split(":")[0] for line in said.splitlines() if ": done. Next" in line]


FORM_AND_COLOR = {
    "preset": "dvae",
    "autoencoder": {"type": "form_and_color", "margin": 4, "width": 32, "blocks": 1},
    "quantizer": {"codes": [16, 8], "entropy_weight": 0},
}


@pytest.mark.parametrize("image_tokenizer", [{}, FORM_AND_COLOR], ids=["plain", "factors"])
def test_all_stages_lead_to_a_run_that_samples(tmp_path, capsys, image_tokenizer):
    run = create(tmp_path / "run", image_tokenizer=image_tokenizer)
    assert next_command(run).endswith("--stage captions")
    run_stages(run)
    said = capsys.readouterr().out
    order = [said.index(f"{stage}: done") for stage in ("captions", "image_tokenizer", "codes")]
    order += [said.index(f"{stage}: done") for stage in ("transformer", "clip")]
    assert order == sorted(order)
    assert "perplexity" in said
    assert f'python sample.py "CAPTION" --run {run.path}' in said
    assert all(run.has_weights(name) for name in ("image_tokenizer", "dalle", "clip"))
    kinds = {path.name.split("-")[0] for path in run.previews.glob("*.png")}
    assert kinds == {"image_tokenizer", "transformer"}
    assert {"hard_psnr", "perplexity"} <= set().union(*run.metrics())

    run_stages(run)
    assert "is complete" in capsys.readouterr().out
    results = TextToImage.from_pretrained(run, "cpu")("a red circle", num_images=2, candidates=4)
    scores = [result.clip_score for result in results]
    assert scores == sorted(scores, reverse=True)
    assert results[0].image.size == (32, 32)


def test_the_transformer_starts_from_the_codebook(run, monkeypatch):
    started = []
    monkeypatch.setattr(
        transformer_stage, "start_from_codebooks", lambda *given: started.append(given)
    )
    run_stages(run, "transformer", resume=False)
    assert len(started) == 3  # codes, those above, and the head
    (codebook,) = started[0][1]
    assert codebook.shape == (16, 4)


def test_a_stage_alone_needs_those_before_it(tmp_path):
    run = create(tmp_path / "run")
    with pytest.raises(RunError, match=r"no captions.json yet; .* --stage captions"):
        run_stages(run, "image_tokenizer")
    with pytest.raises(RunError, match=r"image_tokenizer.safetensors: no such weights"):
        run_stages(run, "codes")
    with pytest.raises(ConfigError, match="no such stage; choose one of captions"):
        run_stages(run, "vae")


def test_a_retrained_tokenizer_makes_codes_stale_and_warns(tmp_path, capsys):
    networks = {"width": 32, "blocks": 1}
    dvae = {"preset": "dvae", "quantizer": {"codes": 8}, "autoencoder": networks}
    run = create(tmp_path / "run", image_tokenizer=dvae)
    run_stages(run)
    capsys.readouterr()
    other = {**dvae, "training": TWO_STEPS | {"seed": 5}}
    run = create(run.path, image_tokenizer=other)
    run_stages(run, "image_tokenizer", resume=False)
    assert "dalle and clip were trained with other image codes" in capsys.readouterr().out
    run_stages(run, "codes")
    assert "renewing" in capsys.readouterr().out
    run_stages(run, "codes")
    assert "encoding" not in capsys.readouterr().out


def test_no_resume_without_a_stage_trains_every_stage_anew(run, capsys):
    run.fingerprint = None
    run_stages(run, resume=False)
    assert stages_done(capsys.readouterr().out) == [
        "captions", "image_tokenizer", "codes", "transformer", "clip"
    ]  # fmt: skip


def test_weights_of_another_image_tokenizer_are_refused_and_trained_anew(run, capsys):
    path, dalle = run.weights_path("image_tokenizer"), run.weights_hash("dalle")
    run.save_weights(
        "image_tokenizer", {name: value + 0.1 for name, value in load_file(path).items()}
    )
    mend = rf"another image tokenizer.*--run {run.path} --stage transformer --no-resume"
    with pytest.raises(RunError, match=mend):
        TextToImage.from_pretrained(run)
    with pytest.raises(RunError, match=r"clip\.safetensors: .* --stage clip --no-resume"):
        load_clip(run, run.captions())
    assert missing_stages(run) == ["codes", "transformer", "clip"]

    run_stages(run)
    said = capsys.readouterr().out
    assert stages_done(said) == ["codes", "transformer", "clip"]
    assert (
        "transformer: inputs (image_tokenizer) changed since the checkpoint; starting again" in said
    )
    assert run.weights_hash("dalle") != dalle
    TextToImage.from_pretrained(run)


def test_weights_that_do_not_say_what_they_were_made_from_are_accepted(run):
    run.save_weights("dalle", load_file(run.weights_path("dalle")))
    run.save_weights("clip", load_file(run.weights_path("clip")))
    path = run.weights_path("image_tokenizer")
    run.save_weights("image_tokenizer", {key: 2 * value for key, value in load_file(path).items()})
    assert missing_stages(run) == []
    TextToImage.from_pretrained(run)


def test_an_interrupted_retraining_is_missing_until_it_is_continued(run, capsys, monkeypatch):
    monkeypatch.setattr(
        StopRequests, "__enter__", lambda self: setattr(self, "signal", signal.SIGTERM) or self
    )
    with pytest.raises(SystemExit):
        run_stages(run, "transformer", resume=False)
    said = capsys.readouterr().out
    assert f"saved at step 1 of 2; to continue: python train.py --run {run.path} --stage" in said
    assert "--no-resume" not in said
    assert missing_stages(run) == ["codes", "transformer"]

    monkeypatch.undo()
    run_stages(run)
    assert "transformer: resuming at step 1" in capsys.readouterr().out
    assert missing_stages(run) == []


def test_clip_alone_needs_no_image_tokenizer(tmp_path):
    run = create(tmp_path / "alone", clip={"reconstructions": 0.0})
    for stage in ("captions", "clip"):
        run_stages(run, stage)
    assert run.has_weights("clip")
    assert run.fits_image_tokenizer("clip")
