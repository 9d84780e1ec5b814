"""The documentation: what is generated is complete, links lead somewhere, and what it tells people to run runs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import pith
from contracts import compressors, variants
from pith.cli import app
from pith.cli.advise import as_data
from pith.predict.advice import Advice, Check, Forecast, Machine, Predicted
from pith.tasks import tasks

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WRITTEN = sorted(p for p in DOCS.rglob("*.md"))
FENCED = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
BUILDS = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs (the extra docs) is not installed"
)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules that make the generated pages."""
    monkeypatch.syspath_prepend(DOCS / "hooks")
    names = ("catalogue", "commands", "figures", "tabled")
    yield {name: importlib.import_module(name) for name in names}
    for name in (*names, "marked"):
        sys.modules.pop(name, None)


def generated(hooks: dict[str, ModuleType]) -> dict[str, str]:
    """The generated pages, but for those that somebody wrote."""
    pages = {**hooks["catalogue"].pages(), **hooks["commands"].pages(), "results.md": hooks["figures"].page()}
    return {path: text for path, text in pages.items() if not (DOCS / path).is_file()}


def test_the_catalogue_tells_everything_of_every_method(hooks: dict[str, ModuleType]) -> None:
    pages = hooks["catalogue"].pages()
    for name, method in pith.methods().items():
        card = pages[f"methods/{name}.md"]
        assert f"({name}.md)" in pages["methods/index.md"]
        assert all(f"| `{p.name}` |" in card for p in method.parameters())
        assert method.paper.url in card
        for line in method.doc("formula").splitlines():
            assert all(word in card for word in line.split())
        checks = hooks["catalogue"].checks(method)
        assert any(Path(path).name == f"test_{name}.py" for path, _ in checks)
        assert all((ROOT / path).is_file() and what for path, what in checks)
        laws = {Path(path).name for path, _ in checks if path.startswith("tests/contracts/")}
        assert laws, f"no law runs over {name}"


def test_the_catalogue_tells_everything_of_every_task(hooks: dict[str, ModuleType]) -> None:
    pages = hooks["catalogue"].pages()
    for name, task in tasks().items():
        assert f"({name}.md)" in pages["tasks/index.md"]
        assert all(f"| `{p.name}` |" in pages[f"tasks/{name}.md"] for p in task.parameters())


def test_the_laws_are_told_by_the_contracts_that_they_run_over(hooks: dict[str, ModuleType]) -> None:
    for name, contracts in hooks["catalogue"].RUN_OVER.items():
        methods = getattr(compressors if name == "COMPRESSORS" else variants, name)
        assert {pith.methods()[method].contract for method in methods} == set(contracts)


def test_the_commands_tell_every_option(hooks: dict[str, ModuleType]) -> None:
    for name, command in hooks["commands"].known().items():
        text = hooks["commands"].options(name)
        assert all(option in text for p in command.params for option in p.opts if option.startswith("--"))
        written = DOCS / "commands" / f"{name}.md"
        if written.is_file():
            assert f"<!-- options: {name} -->" in written.read_text()


def test_every_file_of_results_stands_with_its_command(hooks: dict[str, ModuleType]) -> None:
    page = hooks["figures"].page()
    for name, found in hooks["figures"].stored().items():
        assert f"## `{name}.json`" in page
        assert found.get("command") or name in hooks["figures"].COMMANDS, f"what made {name}.json?"
        assert hooks["figures"].tables(found), f"nothing of {name}.json is shown"


def test_predictions_stand_beside_what_was_measured(hooks: dict[str, ModuleType]) -> None:
    expected, found = Forecast(512, 2**20, 0.1, 0.01, 0.5, 1.2, 0.8), Forecast(512, 2**20, 0.2, 0.01, 0.5, 1.2, 1.0)
    dense, snapkv = Predicted("dense", (expected,), 3), Predicted("snapkv()", (expected,), 3)
    advice = Advice(
        model="builtin", batch=1, lengths=(512,), machine=Machine(1e9, 1e9, 0.01), dense=dense, predicted=(snapkv,),
        refused={}, late=(), layers=2, of=4, seconds=9.0, notes=(), environment={},
    )  # fmt: skip
    data = json.loads(json.dumps(as_data(advice, (Check("snapkv()", expected, found),))))
    text = "\n".join(hooks["tabled"].tables(data))
    assert "| `snapkv()` | 512 | 1.00 MiB → 1.00 MiB (+0%) | 100 ms → 200 ms (-50%) |" in text
    assert "0.80x → 1.00x (-20%)" in text
    assert "2 of 4 layers" in text


def test_every_link_between_pages_leads_somewhere(hooks: dict[str, ModuleType]) -> None:
    made = generated(hooks)
    pages = {**made, **{p.relative_to(DOCS).as_posix(): p.read_text() for p in WRITTEN}}
    for page, text in pages.items():
        for target in LINK.findall(FENCED.sub("", text)):
            path = target.partition("#")[0]
            if path and "://" not in path:
                assert os.path.normpath(Path(page).parent / path) in pages, f"{page} links to {target}"
    for page in ROOT.glob("*.md"):
        for target in LINK.findall(FENCED.sub("", page.read_text())):
            if "://" not in target and not target.startswith("#"):
                assert (ROOT / target.partition("#")[0]).exists(), f"{page.name} links to {target}"


def commands() -> list[tuple[str, str]]:
    """Every `pith` command that a page tells people to run, with its place."""
    found = []
    for page in [*ROOT.glob("*.md"), *WRITTEN]:
        for language, _, text in FENCED.findall(page.read_text()):
            if language in ("console", "bash"):
                for line in text.replace("\\\n", " ").splitlines():
                    line = line.removeprefix("$ ").partition("  #")[0]
                    if line.startswith("pith "):
                        found.append((page.name, line))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_in_the_pages_have_only_options_that_there_are(page: str, line: str) -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    _, name, *rest = shlex.split(line)
    if name == "--help":
        return
    assert name in known, f"{page}: {line}"
    context = known[name].make_context(name, rest)
    assert context.params, f"{page}: {line}"


def test_every_block_of_python_is_run() -> None:
    """Those without a title by tests/test_house.py, those with one below."""
    for page in WRITTEN:
        for language, title, _ in FENCED.findall(page.read_text()):
            if language == "python" and title.strip():
                assert page.name == "adding.md", f"{page.name}: {title} is run by no test"


def test_the_method_of_the_tutorial_keeps_its_tests_and_the_laws(tmp_path: Path) -> None:
    page = (DOCS / "adding.md").read_text()
    files = {title[8:-1]: code for language, title, code in FENCED.findall(page) if title.startswith(' title="')}
    assert set(files) == {"vatp.py", "test_vatp.py"}
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    [entry] = re.findall(r"```toml\n\[project\.entry-points\.\"(.*?)\"\]\n(.*?)```", page, flags=re.DOTALL)
    installed = tmp_path / "vatp_example-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: vatp-example\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(f"[{entry[0]}]\n{entry[1].replace(chr(34), '')}")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "tests")])}
    options = ["-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    laws = [str(ROOT / "tests" / "contracts" / name) for name in ("test_eviction_laws.py", "test_pair_laws.py")]
    chosen = "test_vatp or vatp and (llama_gqa and (everything or padded) or kv_cache_int8)"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_vatp.py"), *laws, "-k", chosen],
        capture_output=True, text=True, check=False, env=environment, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout + " 0 passed")[1])  # type: ignore[index]
    assert passed >= 10, done.stdout[-500:]
    card = subprocess.run(
        [sys.executable, "-m", "pith", "methods", "vatp"], capture_output=True, text=True, check=True, env=environment
    )
    assert "A_j ||v_j||_1" in card.stdout


@BUILDS
def test_the_site_is_built_without_a_warning_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=quiet, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr.strip()
    pages = list(tmp_path.rglob("*.html"))
    assert {f"{name}.html" for name in pith.methods()} <= {p.name for p in pages if p.parent.name == "methods"}
    loads = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?([^\"'\s>]+)|<link\b[^>]*\bhref=[\"']?([^\"'\s>]+)"
    )
    for page in pages:
        for found in loads.findall(page.read_text()):
            assert "//" not in "".join(found), f"{page.name} loads {found}"
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text()), style.name
