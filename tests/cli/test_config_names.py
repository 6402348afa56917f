"""`dalle train` and `dalle plan` take the name of a shipped configuration."""

from dalle_mini_impl.cli import main, plan
from dalle_mini_impl.config import ConfigError


def test_train_and_plan_take_a_name(stage_calls, monkeypatch, capsys):
    options = ["--transformer.depth", "3", "--data.path", "shapes"]
    assert main(["train", "shapes", *options]) == 0
    run = stage_calls[0][0]
    assert str(run.path) == "runs/shapes"
    assert (run.experiment.transformer.depth, run.experiment.data.path) == (3, "shapes")
    planned = []

    def parse(_default, _prog, argv, config):
        planned.append((config, argv))
        raise ConfigError("enough")

    monkeypatch.setattr(plan, "parse", parse)
    assert main(["plan", "shapes", *options]) == 2
    assert main(["plan", "--json", "tiny.yaml"]) == 2
    assert planned == [("shapes", ["shapes", *options]), ("tiny.yaml", ["--json", "tiny.yaml"])]
    monkeypatch.undo()
    capsys.readouterr()
    for name in ("train", "plan"):
        assert main([name]) == 2
        assert "name a shipped configuration (cifar10, " in capsys.readouterr().err
        assert main([name, "shpes"]) == 2
        assert "did you mean shapes?" in capsys.readouterr().err
