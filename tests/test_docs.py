"""The pages say what is so: commands run, recipes work, and settings, options, links and paths are there."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from test_imdb import imdb_files, pack

import app
from app.calibration import CalibrationConfig
from app.cli import cli, main
from app.config import FitConfig, RunConfig, resolve_config
from app.initial_weights import InitConfig
from data.pipeline import PipelineConfig
from data.sources import DataConfig
from data.vocabulary import VocabularyConfig
from models import MODELS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS_OF_VALENCE = typer.main.get_command(cli).commands  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its lines, and the command that stands before it."""

    page: Path
    language: str
    text: str
    after: str

    @property
    def commands(self) -> list[str]:
        """The commands that a reader would paste, their comments cut off."""
        if self.language not in ("bash", "console"):
            return []
        lines = [line.strip() for line in self.text.splitlines()]
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [re.sub(r"\s+# .*$", "", line) for line in lines if line and not line.startswith("#")]


def blocks(*pages: Path) -> Iterator[Block]:
    for page in pages:
        after = ""
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            block = Block(page, match[1], match[2], after)
            after = block.commands[-1] if block.commands else after
            yield block


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


DOCUMENTED = list(dict.fromkeys(command for block in blocks(*PAGES) for command in block.commands))


# The place where the documented commands run


@pytest.fixture(scope="module")
def folder(experiment, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything is there that the pages speak of."""
    folder = tmp_path_factory.mktemp("reader")
    with reviews.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    parts = ["train", "train", "train", "train", "train", "train", "validation", "validation", "test", "test"]
    with (folder / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "part"])
        writer.writeheader()
        writer.writerows({**row, "part": parts[number % 10]} for number, row in enumerate(rows))
    (folder / "reviews.txt").write_text("".join(f"{row['review']}\n" for row in rows[:3]), encoding="utf-8")
    for split, part in (("train", rows[:160]), ("validation", rows[160:200]), ("test", rows[200:])):
        lines = [json.dumps({"text": row["review"], "label": row["stars"]}) for row in part]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for number, row in enumerate(rows):
        target = folder / "reviews" / ("good" if row["stars"] == "1" else "bad") / f"{number}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(row["review"], encoding="utf-8")
    (folder / "deploy").symlink_to(ROOT / "deploy")
    archive = pack(folder / "aclImdb_v1.tar.gz", imdb_files())
    downloaded = folder / "artifacts" / "cache" / "imdb" / archive.name
    downloaded.parent.mkdir(parents=True)
    shutil.copy(archive, downloaded)
    _take_over(experiment, folder)
    (toml,) = (block.text for block in blocks(ROOT / "docs" / "configuration.md") if block.language == "toml")
    (folder / "lstm.toml").write_text(toml, encoding="utf-8")
    return folder


def _take_over(experiment, folder: Path) -> None:
    """The finished experiment, under the name of the data set that the pages train on."""
    artifacts = folder / "artifacts"
    shutil.copytree(experiment.outcome.export.parent, artifacts / "exports" / "rotten-tomatoes")
    shutil.copy(experiment.artifacts / "mlflow.db", artifacts / "mlflow.db")
    # Where the page says that a run keeps its configuration.
    run_id = experiment.outcome.best.run_id
    shutil.copy(experiment.artifacts / "mlruns" / run_id / "artifacts" / "config.toml", folder / "config.toml")
    # In place of what a search ends with.
    (artifacts / "tuned").mkdir()
    shutil.copy(folder / "config.toml", artifacts / "tuned" / "rotten-tomatoes-lstm.toml")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """`python serve.py`, as a reader starts it, on a free port."""
    command = [sys.executable, str(ROOT / "serve.py"), "--engine=embedded", "--rest_api_port=0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                break
        else:
            pytest.fail(f"serve.py ended: {said}")
        process.terminate()
        process.communicate()
    assert process.returncode == 0


class Place:
    """Runs one documented command in the folder; every method below is a way to do so."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.request = request
        self.capsys: pytest.CaptureFixture[str] = request.getfixturevalue("capsys")
        monkeypatch.chdir(folder)

    def here(self, command: str) -> str:
        """The command with the port of the server that is running in place of the documented one."""
        return command.replace("127.0.0.1:8501", self.request.getfixturevalue("server").removeprefix("http://"))

    def valence(self, *arguments: str) -> str:
        """What the command line prints on standard output, run in this process: TensorFlow is imported once."""
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = self.capsys.readouterr()
        assert ended.value.code in (0, None), printed.err
        return printed.out

    def train(self, command: str) -> str:
        """Training, on few pieces and in one epoch; all but one command up to the first step only."""
        words = shlex.split(command)[2:]
        small = [] if "--config" in words else ["vocabulary.size=200", "pipeline.sequence_length=24"]
        if not {"--data", "--config"} & set(words):
            words += ["--data", "reviews.csv", "--text-column", "review", "--label-column", "stars"]
        # Before the documented words, so that what they set wins.
        words = [word for setting in small for word in ("--set", setting)] + words
        if "--json" in words:
            artifacts = self.folder / "other artifacts"
            self.monkeypatch.setenv("VALENCE_ARTIFACTS", str(artifacts))
            # MLflow puts the store that this process used last into it.
            self.monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
            outcome = self.valence("train", "--set", "model.epochs=1", "--set", "model.num_buckets=1024", *words)
            assert Path(json.loads(outcome)["export"]) == artifacts / "exports" / "reviews" / "1"
            assert (artifacts / "mlflow.db").is_file()
            return outcome
        self.train_up_to_the_first_step(words)
        return ""

    def train_up_to_the_first_step(self, words: list[str]) -> Any:
        """Everything that `train` does with its options: resolve, read, split, learn the vocabulary, build."""
        import app.experiment
        from app.training import build_model, prepare

        class Prepared(Exception):  # noqa: N818 - no error: it is the end of what is wanted here
            pass

        material = None

        def run_experiment(configs: list[RunConfig], artifacts: Path, reporter: Any, gates: Any) -> None:
            nonlocal material
            material = prepare(configs[0], artifacts / "cache", reporter)
            assert [build_model(config, material).name for config in configs] == [c.model_name for c in configs]
            raise Prepared

        self.monkeypatch.setattr(app.experiment, "run_experiment", run_experiment)
        with pytest.raises(Prepared):
            main(["train", *words])
        return material

    def predict(self, command: str) -> str:
        """`valence predict`, its standard input from the command before the pipe."""
        command = self.here(command) if "--url" in command else command
        *before, command = command.split(" | ")
        if before:
            lines = subprocess.run(shlex.split(before[0]), capture_output=True, check=True).stdout
            self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        return self.valence(*shlex.split(command)[1:])

    def verify(self, command: str) -> str:
        command = self.here(command) if "--url" in command else command
        return self.valence(*shlex.split(command)[1:])

    def serve(self, command: str) -> str:
        """The plan; `python serve.py` itself is what the `server` fixture runs."""
        return self.valence("serve", *shlex.split(command)[2:], "--dry-run")

    def curl(self, command: str) -> str:
        if shutil.which("curl") is None:
            pytest.skip("curl is not on the PATH")
        return subprocess.run(
            shlex.split(self.here(command)), capture_output=True, text=True, check=True, timeout=30
        ).stdout

    # Not run

    def make(self, command: str) -> str:
        """`make -n`: the target is there, and make finds a way to it."""
        if shutil.which("make") is None:
            pytest.skip("make is not on the PATH")
        (target,) = shlex.split(command)[1:]
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert planned.returncode == 0, planned.stderr
        return ""

    def as_the_makefile_does(self, command: str) -> str:
        """The options of the page are those that `make setup` uses."""
        recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
        words = shlex.split(command)
        assert all(word in recipe for word in words if word.startswith("-"))
        for extra in re.findall(r"\[(\w+)\]", command):
            assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        return ""

    def help(self, command: str) -> str:
        """Every option is one of the command's."""
        name, *words = shlex.split(command)[1:]
        known = {option for parameter in COMMANDS_OF_VALENCE[name].params for option in parameter.opts}
        assert known >= {word for word in words if word.startswith("-")}
        return ""

    def as_planned(self, command: str) -> str:
        """The command is, word for word, what `serve --dry-run` prints for that engine."""
        engine = "docker" if command.startswith("docker") else "tensorflow-serving"
        gpu = ["--gpu"] if "--gpus" in command else []
        planned = self.valence("serve", "--engine", engine, *gpu, "--dry-run")
        assert shlex.split(command.replace("$PWD", str(self.folder.resolve()))) == shlex.split(planned)
        return ""

    def test_file(self, command: str) -> str:
        """The tests are running already; the file that is named is one of them."""
        assert all((ROOT / word).is_file() for word in shlex.split(command) if word.startswith("tests/"))
        return ""

    def activate(self, command: str) -> str:
        """Where a virtual environment has its script; it changes a shell, and this is none."""
        assert command == "source .venv/bin/activate"
        return ""


# What a documented command starts with, how it is run or checked here, and for those that are not run, why.
WAYS: dict[str, tuple[Callable[[Place, str], str], str]] = {
    "python train.py": (Place.train, ""),
    "valence predict": (Place.predict, ""),
    "cat reviews.txt | valence predict": (Place.predict, ""),
    "valence verify": (Place.verify, ""),
    "curl": (Place.curl, ""),
    "python serve.py": (Place.serve, "would not end; the fixture `server` runs it once, here it is planned"),
    "make": (Place.make, "sets up, or trains for minutes, or runs these tests"),
    "source": (Place.activate, "changes the reader's shell"),
    "python3 -m venv": (Place.as_the_makefile_does, "installs"),
    ".venv/bin/python -m pip": (Place.as_the_makefile_does, "downloads and installs"),
    "pip install": (Place.as_the_makefile_does, "downloads and installs"),
    ".venv/bin/python -m pytest": (Place.test_file, "runs tests"),
    "valence ui": (Place.help, "would not end"),
    "valence pretrain": (Place.help, "learns for minutes; tests/test_pretraining.py runs it on little text"),
    "valence tune": (Place.help, "takes as long as its budget; tests/test_tuning.py runs it"),
    "valence compare": (Place.help, "names runs that the reader has; tests/test_compare_command.py runs it"),
    "valence promote": (Place.help, "would move the champion that other pages ask; tests/test_promotion.py runs it"),
    "docker": (Place.as_planned, "needs a Docker daemon, a download and a GPU"),
    "tensorflow_model_server": (Place.as_planned, "is not installed with Valence"),
}


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
    return Place(folder, monkeypatch, request)


@pytest.mark.parametrize("command", DOCUMENTED)
def test_a_documented_command_works(command: str, place: Place):
    ways = [way for start, (way, _) in WAYS.items() if f"{command} ".startswith(f"{start} ")]
    assert len(ways) == 1, f"no way to run or check it: give `{command}` a line in WAYS"
    answer = ways[0](place, command)
    for block in blocks(*PAGES):
        if block.language == "json" and block.after == command:
            assert form(json.loads(answer)) == form(json.loads(block.text))


def form(value: Any) -> Any:
    """Keys and types of what JSON holds; of a list those of its first item, of named probabilities only that."""
    if isinstance(value, dict):
        return {key: "by label" if key == "probabilities" else form(item) for key, item in value.items()}
    if isinstance(value, list):
        return [form(value[0])] if value else []
    return type(value).__name__


def test_every_way_is_used():
    for start in WAYS:
        assert any(command.startswith(start) for command in DOCUMENTED), f"no page says `{start}` any more"


@pytest.mark.parametrize("shim", ["train", "serve"])
def test_the_shims_are_the_commands(shim: str):
    shown = [
        subprocess.run(
            [sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for program in ([f"{shim}.py"], ["-m", "app", shim])
    ]
    ours, theirs = (re.sub(r" Usage: .*\n", "", page) for page in shown)
    assert "Options" in ours
    assert ours == theirs


def test_a_run_s_configuration_fed_back_gives_the_same_data_vocabulary_and_pipeline(place: Place, experiment):
    material = place.train_up_to_the_first_step(["--config", "config.toml"])
    assert material.fingerprints == experiment.outcome.material.fingerprints


def test_the_python_example_asks_the_server(place: Place):
    (code,) = (block.text for block in blocks(*PAGES) if block.language == "python" and "requests.post" in block.text)
    exec(place.here(code), {})
    assert re.fullmatch(r"\w+ 0\.\d+\n", place.capsys.readouterr().out)


@pytest.fixture
def rotten_tomatoes(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registered model has the name of the data that the pages train on."""
    import mlflow

    # `mlflow.set_experiment` of an example would hold for every later test of this process.
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    before = mlflow.get_tracking_uri()
    client = mlflow.MlflowClient(f"sqlite:///{place.folder}/artifacts/mlflow.db")
    if client.search_registered_models("name = 'reviews'"):
        client.rename_registered_model("reviews", "rotten-tomatoes")
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.usefixtures("rotten_tomatoes")
def test_the_mlflow_example_loads_the_champion(place: Place):
    exec(mlflow_example("serving.md"), {})
    assert "confidence" in place.capsys.readouterr().out


@pytest.mark.usefixtures("rotten_tomatoes")
@pytest.mark.filterwarnings("ignore")  # MLflow's evaluator warns of its own use of pandas and scikit-learn
def test_the_mlflow_example_evaluates_the_champion(place: Place):
    exec(mlflow_example("tracking.md"), {})
    assert place.capsys.readouterr().out == "1.0\n"


def mlflow_example(page: str) -> str:
    (code,) = (block.text for block in blocks(ROOT / "docs" / page) if "mlflow." in block.text)
    return code


# The recipes of CONTRIBUTING.md

RECIPES = [block for block in blocks(ROOT / "CONTRIBUTING.md") if block.language in ("python", "diff")]


@pytest.fixture(scope="module")
def contributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which somebody has followed every recipe."""
    copy = tmp_path_factory.mktemp("contributed")
    for name in ("app", "models", "data", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for block in RECIPES:
        first, content = block.text.split("\n", 1)
        path = copy / first.removeprefix("# ")
        if block.language == "python":
            path.write_text(content, encoding="utf-8")
        else:
            path.write_text(with_changes(path.read_text(encoding="utf-8"), content), encoding="utf-8")
    return copy


def with_changes(text: str, changes: str) -> str:
    """Add the lines marked + after the lines they stand by; ` ...` is what a diff leaves out."""
    for hunk in changes.split("\n ...\n"):
        lines = [line or " " for line in hunk.splitlines()]
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] == " ")
        assert text.count(before) == 1, f"not once in the file: {before}"
        text = text.replace(before, "".join(f"{line[1:]}\n" for line in lines))
    return text


@pytest.mark.slow
def test_the_recipes_pass_the_project_s_own_tests(contributed: Path):
    files = ["tests/test_models.py", "tests/test_devices.py", "tests/test_metrics.py", "tests/test_parity.py"]
    chosen = ["-k", "averaging or macro_recall or oracle or parity", "-p", "no:cacheprovider"]
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files, *chosen], cwd=contributed, capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout[-4000:] + tested.stderr[-1000:]
    assert int(re.findall(r"(\d+) passed", tested.stdout)[-1]) >= 20


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]])
def test_the_recipes_are_in_the_project_s_style(contributed: Path, check: list[str]):
    changed = sorted({block.text.split("\n", 1)[0].removeprefix("# ") for block in RECIPES})
    subprocess.run([sys.executable, "-m", "ruff", *check, "--no-cache", *changed], cwd=contributed, check=True)


@pytest.mark.slow
def test_the_signature_recipe_adds_a_signature(contributed: Path, experiment, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("app.export", contributed / "app" / "export.py")
    assert spec is not None
    assert spec.loader is not None
    changed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(changed)
    monkeypatch.setitem(sys.modules, "app.export", changed)
    written: dict[str, Any] = {}
    exec((contributed / "tests" / "test_logits_signature.py").read_text(encoding="utf-8"), written)
    written["test_the_probabilities_are_those_of_the_logits"](experiment, tmp_path)

    from app.serving.inspection import examine

    found = examine(tmp_path / "1")
    assert found.signatures == ["logits", "predict_set", "serving_default", "text_statistics"]
    assert found.problems == []


# Settings


def documented_settings() -> dict[str, dict[str, str]]:
    """Heading -> setting -> the cell with its default."""
    tables: dict[str, dict[str, str]] = {}
    heading = ""
    for line in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").splitlines():
        heading = line.lstrip("# ") if line.startswith("#") else heading
        if row := re.match(r"\| `([a-z_.]+)` \| (.+?) \|", line):
            tables.setdefault(heading, {})[row[1]] = row[2]
    return tables


def cell(default: Any) -> str:
    """A default as the page writes it: a TOML value."""
    if default is None:
        return "not set"
    if isinstance(default, tuple):
        return f"`{list(default)}`"
    text = str(default).lower() if isinstance(default, bool | int | float) else f'"{default}"'
    return f"`{text}`"


def defaults(config: Any, prefix: str) -> dict[str, str]:
    return {f"{prefix}{name}": cell(getattr(config, name)) for name in type(config).model_fields}


def test_every_setting_is_documented_with_its_default():
    config = resolve_config("linear", {})
    run = {name: cell(getattr(config, name)) for name in ("seed", "seeds", "deterministic", "tuning_budget_minutes")}
    expected = {
        "Run": run,
        "Data": defaults(DataConfig(), "data."),
        "Vocabulary": defaults(VocabularyConfig(), "vocabulary."),
        "Pipeline": defaults(PipelineConfig(), "pipeline."),
        "Fit": defaults(FitConfig(), "fit."),
        "Calibration": defaults(CalibrationConfig(), "calibration."),
        "Init": defaults(InitConfig(), "init."),
        **{f"Model: {name}": defaults(entry.config(), "model.") for name, entry in MODELS.items()},
    }
    assert documented_settings() == expected


def test_no_section_of_the_configuration_is_left_out():
    assert set(RunConfig.model_fields) == {
        *("model_name", "seed", "seeds", "deterministic", "tuning_budget_minutes"),
        *("data", "vocabulary", "pipeline", "fit", "calibration", "init", "model"),
    }


# Options, links, paths, versions

OPTIONS = [
    (name, parameter)
    for name, command in COMMANDS_OF_VALENCE.items()
    for parameter in command.params
    if any(option.startswith("--") for option in parameter.opts)
]


@pytest.mark.parametrize(("command", "parameter"), OPTIONS, ids=[f"{name} {p.name}" for name, p in OPTIONS])
def test_every_option_is_in_a_page(command: str, parameter: Any):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert any(re.search(rf"{option}(?![\w-])", pages) for option in parameter.opts)


@pytest.mark.parametrize("command", COMMANDS_OF_VALENCE)
def test_every_command_is_in_a_page(command: str):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"(valence |python |make ){command}\b", pages)


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path):
    text = prose(page)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, fragment = link.partition("#")
        if target.startswith("https://"):
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name}: {link}"
        assert not fragment or fragment in anchors(path), f"{page.name}: {link}"
    for path in re.findall(r"`((?:app|models|data|docs|tests|\.ci)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_tree_in_the_readme_is_the_tree():
    (tree,) = (block.text for block in blocks(ROOT / "README.md") if "cli.py" in block.text)
    folder = ROOT
    for line in tree.splitlines():
        entry = line[:24]
        names = re.findall(r"[\w.]+/|\w+\.py", entry)
        if not line.startswith(" "):
            folder = ROOT / names[0] if names[0].endswith("/") else ROOT
        for name in names:
            parent = folder if line.startswith(" ") else ROOT
            assert (parent / name).exists() or name == "artifacts/", f"README's tree: {name}"


def test_continuous_integration_runs_a_command_of_the_readme_and_leaves_no_test_out():
    (command,) = re.findall(r"^exec (make .*)$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
    assert command in [line for block in blocks(ROOT / "README.md") for line in block.text.splitlines()]
    planned = subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True)
    (tests,) = (line for line in planned.stdout.splitlines() if " -m pytest" in line)
    assert "slow" not in tests


def test_the_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    released = re.findall(r"^## \[(\d.*?)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == app.__version__ == project["version"]


def test_the_licence_is_the_one_that_is_declared():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


# What must not be in the repository


def test_the_lock_names_no_registry():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert re.findall(r"\S+://\S+|^-.*|\S*pypi\.org\S*|\S*pythonhosted\S*", lock, re.MULTILINE) == []


def test_no_file_names_a_path_of_somebody_s_machine():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    machine_path = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/[\w.]+")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            assert machine_path.findall((ROOT / name).read_text(encoding="utf-8", errors="replace")) == [], name
