"""The architecture's rules: import directions, circles and sizes (docs/architecture.md)."""

import ast
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dalle_mini_impl"

MAX_TOP_MODULES = 8
MAX_FILE_LINES = 250
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True)
class Rule:
    """What the modules under `subject` may import, or which modules may import `subject`.

    Names are space-separated: of this package without its own name, or of libraries.
    """

    subject: str
    never: str = ""
    only: str | None = None
    """Among this package's modules; libraries are not restricted."""
    imported_by: str | None = None


RULES = [
    Rule("config", only="config"),
    Rule("kernels", only="kernels"),
    Rule("shipped", only="shipped"),
    Rule("models", only="models kernels config", never="accelerate datasets PIL"),
    Rule("models.dalle", never="models.clip models.tokenizers"),
    Rule("models.clip", never="models.dalle models.tokenizers"),
    Rule("models.tokenizers", never="models.dalle models.clip"),
    Rule("sampling", never="data runs training evaluation pipeline"),
    Rule("data", never="models sampling training evaluation pipeline"),
    Rule("training", never="evaluation"),
    Rule("evaluation", never="training"),
    Rule("evaluation.measures", never="pipeline runs"),
    Rule("evaluation.measures.distances", never="models"),
    Rule("cli", imported_by="cli __main__"),
    Rule("accelerate", imported_by="training cli"),
]


def modules(folder: Path) -> dict[str, Path]:
    """Every module below a package's folder by its full name."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imports(source: str) -> set[str]:
    """Full names that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def any_within(name: str, packages: str) -> bool:
    return any(within(name, package) for package in packages.split())


def import_graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports; packages and what they contain count as one."""
    graph = {}
    for module, file in files.items():
        targets = set()
        for name in imports(file.read_text(encoding="utf-8")):
            # `from package.module import name` also names an attribute of the module.
            target = name if name in files else name.rpartition(".")[0]
            if target in files and not (within(target, module) or within(module, target)):
                targets.add(target)
        graph[module] = targets
    return graph


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("modules import each other: " + " <- ".join(error.args[1]))


def breaches(rule: Rule, module: str, source: str) -> list[str]:
    """Imports of a module, named without the package, that a rule forbids."""
    ours, libraries = set(), set()
    for name in imports(source):
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            ours.add(name.removeprefix(PACKAGE).removeprefix("."))
        else:
            libraries.add(name)
    if rule.imported_by is not None:
        allowed = any_within(module, rule.imported_by)
        return [] if allowed else sorted(n for n in ours | libraries if within(n, rule.subject))
    if not within(module, rule.subject):
        return []
    found = {name for name in ours | libraries if any_within(name, rule.never)}
    if rule.only is not None:
        found |= {name for name in ours if not any_within(name, rule.only)}
    return sorted(found)


PACKAGE_MODULES = modules(ROOT / PACKAGE)
SOURCES = {
    name.removeprefix(PACKAGE).removeprefix("."): file.read_text(encoding="utf-8")
    for name, file in PACKAGE_MODULES.items()
}


@pytest.mark.parametrize("package", [PACKAGE, "benchmarks"])
def test_no_modules_import_each_other(package):
    assert_no_circle(import_graph(modules(ROOT / package)))


def test_a_circle_through_a_local_import_is_noticed(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.py").write_text("from p.b import f")
    (tmp_path / "p/b.py").write_text("def f():\n    from p import a")
    with pytest.raises(pytest.fail.Exception, match=r"p\.a"):
        assert_no_circle(import_graph(modules(tmp_path / "p")))


@pytest.mark.parametrize("package", [PACKAGE, "benchmarks", "tests"])
def test_imports_name_modules_that_exist(package):
    known = {name for folder in (PACKAGE, "benchmarks", "tests") for name in modules(ROOT / folder)}
    unknown = set()
    for module, file in modules(ROOT / package).items():
        for name in imports(file.read_text(encoding="utf-8")):
            ours = name.split(".")[0] in (PACKAGE, "benchmarks", "tests")
            if ours and name not in known and name.rpartition(".")[0] not in known:
                unknown.add(f"{module}: {name}")
    assert unknown == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.subject)
def test_import_rule_holds(rule):
    found = {module: breaches(rule, module, source) for module, source in SOURCES.items()}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.subject)
def test_rule_names_what_exists(rule):
    names = f"{rule.subject} {rule.never} {rule.only or ''} {rule.imported_by or ''}".split()
    missing = [n for n in names if n not in SOURCES and importlib.util.find_spec(n) is None]
    assert missing == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kernels.attention", "from dalle_mini_impl.config import ConfigError"),
        ("models.clip", "from dalle_mini_impl.models.dalle import Dalle"),
        ("models.clip", "def f():\n    import accelerate.utils"),
        ("models.dalle", "from dalle_mini_impl.models import tokenizers"),
        ("models.dalle", "from dalle_mini_impl import captions"),
        ("models.tokenizers.pixels", "from PIL import Image"),
        ("sampling.sampler", "import dalle_mini_impl.runs.loading"),
        ("data.store", "from dalle_mini_impl import models"),
        ("evaluation.report.page", "from dalle_mini_impl.training.loop import train"),
        ("pipeline", "from dalle_mini_impl.cli import main"),
        ("pipeline", "import accelerate"),
    ],
)
def test_a_breach_is_noticed(module, source):
    assert any(breaches(rule, module, source) for rule in RULES)


def test_allowed_imports_pass():
    source = "import torch\nfrom dalle_mini_impl.kernels.attention import attention"
    assert not any(breaches(rule, "models.clip", source) for rule in RULES)


@pytest.mark.parametrize("module", ["sampling.sampler", "pipeline"])
def test_sampling_imports_no_compiler_and_no_training_libraries(module):
    code = f"import sys, {PACKAGE}.{module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    unwanted = f"{PACKAGE}.sampling.compiled {PACKAGE}.training accelerate datasets torch._dynamo"
    assert [name for name in done.stdout.split() if any_within(name, unwanted)] == []


def test_models_do_not_ask_about_hardware():
    words = re.compile("is_compiling|cpuinfo|mkldnn|capability")
    asking = [n for n, source in SOURCES.items() if within(n, "models") and words.search(source)]
    assert asking == []


def test_few_modules_stand_at_the_top():
    top = sorted(file.name for file in (ROOT / PACKAGE).glob("*.py"))
    assert len(top) <= MAX_TOP_MODULES, top


def test_files_are_short():
    lengths = {name: len(source.splitlines()) for name, source in SOURCES.items()}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_functions_fit_a_screen():
    found = {}
    for name, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    found[f"{name}.{node.name}"] = length
    assert found == {}
