"""`dalle train`: options reach the run, and settings of finished stages are kept."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from dalle_mini_impl.cli import main
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.lock import writing


def test_train_creates_the_run_and_passes_it_on(stage_calls, capsys):
    options = ["--transformer.depth", "3", "--image-tokenizer.training.steps", "100"]
    assert (
        main(["train", "tiny.yaml", *options, "--stage", "clip", "--no-resume", "--tensorboard"])
        == 0
    )
    assert capsys.readouterr().out == "training in runs/tiny\n"
    ((run, stage, resume, tensorboard),) = stage_calls
    assert (str(run.path), stage, resume, tensorboard) == ("runs/tiny", "clip", False, True)
    saved = RunFolder.open("runs/tiny").experiment
    assert saved == run.experiment
    assert (saved.transformer.depth, saved.transformer.width) == (3, 64)
    assert saved.image_tokenizer.training.steps == 100


def test_a_run_is_continued_without_naming_its_yaml(stage_calls):
    main(["train", "tiny.yaml", "--run", "runs/other"])
    assert main(["train", "--run", "runs/other"]) == 0
    assert main(["train", "--run=runs/other", "--clip.training.steps", "5"]) == 0
    assert [str(run.path) for run, *_ in stage_calls] == ["runs/other"] * 3
    assert stage_calls[1][0].experiment.transformer.width == 64
    assert RunFolder.open("runs/other").experiment.clip.training.steps == 5


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (["--transformer.depth", "3"], "transformer.depth", 3),
        (["--data.path", "pics"], "data.path", "pics"),
        (["--data.held-out-captions", "red", "blue"], "data.held_out_captions", ("red", "blue")),
    ],
)
def test_the_yaml_may_follow_an_option(stage_calls, options, field, value):
    assert main(["train", *options, "tiny.yaml"]) == 0
    found = stage_calls[0][0].experiment
    for part in field.split("."):
        found = getattr(found, part)
    assert found == value
    assert str(stage_calls[0][0].path) == "runs/tiny"


def test_another_image_tokenizer_may_be_asked_for(stage_calls):
    Path("other.yaml").write_text(
        "image_tokenizer: {preset: fsq, quantizer: {levels: 5x5}, training: {batch_size: 5}}\n"
    )
    options = ["--image-tokenizer.preset", "vqgan", "--image-tokenizer.quantizer.codes", "64", "32"]
    assert main(["train", "other.yaml", *options, "--image-tokenizer.training.steps", "7"]) == 0
    tokenizer = stage_calls[0][0].experiment.image_tokenizer
    assert (tokenizer.preset, tokenizer.factors) == ("vqgan", (64, 32))
    assert tokenizer.objective.adversarial.weight > 0
    assert (tokenizer.training.batch_size, tokenizer.training.steps) == (5, 7)
    assert RunFolder.open("runs/other").experiment.image_tokenizer == tokenizer


def test_types_and_what_they_need_may_be_asked_for_together(stage_calls):
    options = ["--image-tokenizer.autoencoder.type", "palette", "--image-tokenizer.preset", "dvae"]
    assert main(["train", "tiny.yaml", *options]) == 2
    assert (
        main(["train", "tiny.yaml", *options, "--image-tokenizer.quantizer.codes", "9", "4", "4"])
        == 0
    )
    fitting = ["--image-tokenizer.downsampling", "4", "--image-tokenizer.autoencoder.patch", "2"]
    assert main(["train", "tiny.yaml", "--run", "runs/fine", *fitting]) == 0
    tokenizer = stage_calls[0][0].experiment.image_tokenizer
    assert (tokenizer.autoencoder.type, tokenizer.factors) == ("palette", (9, 4, 4))


def test_help_shows_the_values_of_the_yaml(stage_calls, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "tiny.yaml", "--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--transformer.depth INT Number of blocks. (default: 2)" in shown
    assert "--image-tokenizer.training.steps INT" in shown
    assert "--stage" in shown
    assert not stage_calls


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "CONFIG is missing"),
        (["--run", "runs/none"], "runs/none: not a run"),
        (["tiny.yaml", "--transformer.depth", "0"], "transformer.depth = '0': should be greater"),
        (["tiny.yaml", "--clip.training.steps=0"], "clip.training.steps = '0': should be greater"),
        (["tiny.yaml", "--transformer.heads", "5"], "transformer.heads = 5: does not divide"),
        (["tiny.yaml", "--data.held-out-captions", "("], "not a regular expression"),
    ],
)
def test_impossible_options_are_refused(stage_calls, capsys, arguments, complaint):
    assert main(["train", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert not stage_calls
    assert not Path("runs").exists()


def test_a_misspelled_option_names_the_nearest(stage_calls, capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "tiny.yaml", "--transformer.dpth", "3"])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert "--transformer.depth" in captured.err + captured.out


def test_settings_of_a_finished_stage_are_kept(stage_calls, capsys):
    main(["train", "tiny.yaml"])
    run = stage_calls[0][0]
    run.save_weights("image_tokenizer", nn.Linear(1, 1).state_dict())
    width = run.experiment.image_tokenizer.autoencoder.width

    assert main(["train", "tiny.yaml", "--image-tokenizer.autoencoder.width", "192"]) == 2
    message = capsys.readouterr().err
    assert "image_tokenizer stage is finished" in message
    assert f"image_tokenizer.autoencoder.width was {width}, now 192" in message
    assert "another --run" in message
    assert main(["train", "tiny.yaml", "--data.held-out", "0.1"]) == 2
    assert "data.held_out was 0.05, now 0.1" in capsys.readouterr().err
    assert main(["train", "tiny.yaml", "--image-tokenizer.training.steps", "9"]) == 2
    assert RunFolder.open(run.path).experiment == run.experiment

    # What the finished stage does not depend on, or does not learn from, may change.
    accepted = ["--transformer.depth", "4", "--sampling.top-k", "9", "--data.workers", "1"]
    assert main(["train", "tiny.yaml", *accepted]) == 0
    assert RunFolder.open(run.path).experiment.transformer.depth == 4
    restart = [
        "--stage",
        "image_tokenizer",
        "--no-resume",
        "--image-tokenizer.autoencoder.width",
        "192",
    ]
    assert main(["train", "--run", str(run.path), *restart]) == 0
    assert RunFolder.open(run.path).experiment.image_tokenizer.autoencoder.width == 192


def test_no_resume_allows_every_change_and_removes_outdated_results(stage_calls):
    main(["train", "tiny.yaml"])
    run = stage_calls[0][0]
    run.record_fingerprint("abc")
    for name in ("image_tokenizer", "dalle", "clip"):
        run.save_weights(name, nn.Linear(1, 1).state_dict())
    (run.checkpoints("transformer") / "step-1").mkdir()

    changing = ["train", "--run", str(run.path), "--no-resume", "--transformer.depth", "3"]
    with writing(run.path, "transformer"):
        assert main(changing) == 2
    assert run.has_weights("dalle")
    assert main(changing) == 0
    reopened = RunFolder.open(run.path)
    assert reopened.experiment.transformer.depth == 3
    assert reopened.fingerprint is None
    assert reopened.has_weights("image_tokenizer")
    assert reopened.has_weights("clip")
    assert not reopened.has_weights("dalle")
    assert not (run.path / "checkpoints" / "transformer").exists()
    assert stage_calls[1][1:3] == (None, False)


@pytest.mark.parametrize(("kind", "status"), [("fsq", 0), ("vqgan", 2)])
def test_previews_may_change_where_training_does_not_depend_on_them(
    stage_calls, capsys, kind, status
):
    options = ["tiny.yaml", "--image-tokenizer.preset", kind]
    main(["train", *options])
    (stage_calls[0][0].checkpoints("image_tokenizer") / "state").touch()
    (stage_calls[0][0].checkpoints("transformer") / "state").touch()
    assert main(["train", *options, "--transformer.training.previews", "9"]) == 0
    changed = ["--transformer.training.previews", "9", "--image-tokenizer.training.previews", "9"]
    assert main(["train", *options, *changed]) == status
    assert ("previews was 4, now 9" in capsys.readouterr().err) == (status == 2)


def test_a_started_stage_may_only_be_prolonged(stage_calls, capsys):
    main(["train", "tiny.yaml"])
    (stage_calls[0][0].checkpoints("transformer") / "state").touch()
    assert main(["train", "tiny.yaml", "--transformer.width", "128"]) == 2
    assert "transformer stage is started" in capsys.readouterr().err
    assert main(["train", "tiny.yaml", "--transformer.training.steps", "9"]) == 0


def test_training_is_refused_where_the_data_does_not_fit(stage_calls, monkeypatch, capsys):
    usage = SimpleNamespace(free=10 * 2**20)
    monkeypatch.setattr("dalle_mini_impl.planning.disk.shutil.disk_usage", lambda _: usage)
    assert main(["train", "tiny.yaml", "--run", "full"]) == 2
    message = capsys.readouterr().err
    assert "full/cache: preparing the data takes 0.3 GiB, but 0.0 GiB are free" in message
    assert not stage_calls

    prepared = Path("full/cache/images/train")
    prepared.mkdir(parents=True)
    (prepared / "store.json").write_text("{}")
    assert main(["train", "tiny.yaml", "--run", "full"]) == 0
    assert len(stage_calls) == 1
