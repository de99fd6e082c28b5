"""Starting costs nothing, and what is typed wrong is answered with what is right."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tinygpt.cli import failures, main, options
from tinygpt.cli.signals import Signals
from tinygpt.config.fields import FIELDS, requirement
from tinygpt.errors import StorageError, TinygptError

HEAVY = {"torch", "numpy", "matplotlib", "pydantic", "datasets", "tokenizers", "rich", "yaml"}


def python(
    code: str, *, cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environ},
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["artifacts", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    heavy = (
        HEAVY if arguments == ["--help"] else HEAVY - {"pydantic", "yaml"}
    )  # the keys' own words explain its flags
    done = python(f"""
        import sys
        from tinygpt.cli import invoke
        code = invoke({arguments!r})
        print("LOADED", sorted({heavy!r} & set(sys.modules)), code)
    """)
    assert done.stdout.splitlines()[-1] == "LOADED [] 0", done.stderr


@pytest.mark.parametrize(
    ("arguments", "wrong", "right"),
    [
        (["trian"], "no such command `trian`", "did you mean `tinygpt train`?"),
        (["artifacts", "lst"], "no such command `lst`", "did you mean `tinygpt artifacts ls`?"),
        (
            ["sample", "--tempreture", "3"],
            "`--tempreture` is not a flag of `tinygpt sample`",
            "did you mean `--temperature`?",
        ),
        (
            ["sample", "--top-k", "many"],
            'must be an integer, at least 1, or "none" (from --top-k)',
            "likeliest",
        ),
        (
            ["train", "--max-minutes", "many"],
            "`--max-minutes`",
            "`tinygpt train --help` lists the commands and flags",
        ),
        (["sample", "--top-p", "1.5"], "`sample.top_p` = 1.5", "likeliest"),
        (["train", "--max-steps"], "--max-steps", "--help` lists the commands and flags"),
        (["train", "--resume", "--fresh"], "cannot be combined", "one of them"),
        (["run", "--until", "trian"], "`trian` is not a stage", "did you mean `train`?"),
        (["run", "--set", "train.max_step=3"], "`train.max_step`", "`train.max_steps`"),
        (["run", "--set", "model.n_heads=3"], "not divisible", "use"),
        (["run", "--preset", "lapdog"], "lapdog", "laptop"),
        (["run", "--config", "nothing.toml"], "nothing.toml", ""),
        (["artifacts", "show", "zz"], "`zz` is not the id", "tinygpt artifacts ls"),
        (["sample", "a prompt", "--file", "b"], "cannot be combined", "one of them"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_right_word(tinygpt, arguments, wrong, right):
    result = tinygpt(*arguments)
    assert (result.code, result.out) == (2, "")
    first, empty, *hint = result.err.rstrip("\n").split("\n")
    assert first.startswith("error: ")
    assert wrong in first
    assert empty == ""
    assert hint[0].startswith("hint: ")
    assert right in "\n".join(hint)


def test_help_of_a_setting_flag_is_the_description_of_its_key(tinygpt, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command, key in (
        ("sample", "sample.top_p"),
        ("sample", "sample.prompt"),
        ("train", "train.max_steps"),
    ):
        said = " ".join(tinygpt(command, "--help").out.lower().split())
        assert f"{FIELDS[key].description} ({requirement(key)})".lower() in said


def test_idle_threads_sleep_unless_told_otherwise(monkeypatch):
    for before, after in ((None, "1000"), ("7", "7")):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        if before:
            monkeypatch.setenv("GOMP_SPINCOUNT", before)
        monkeypatch.setattr(sys, "argv", ["tinygpt", "--version"])
        with pytest.raises(SystemExit):
            main()
        assert os.environ["GOMP_SPINCOUNT"] == after


def test_windows_is_answered_with_a_sentence():
    done = python("""
        import os, signal
        os.name = "nt"
        del signal.SIGHUP, signal.SIGALRM  # which Windows has not
        from tinygpt.cli import main
        main()
    """)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "error: tinygpt needs the file locks of Linux and macOS",
    )


def test_untrusted_text_in_an_error_is_escaped(tinygpt):
    result = tinygpt("\x1b[31mred\u202e")
    assert "\x1b" not in result.err
    assert "\\x1b[31mred\\u202e" in result.err


def test_no_command_shows_the_help(tinygpt):
    assert tinygpt().out.startswith("Usage: tinygpt [OPTIONS] COMMAND")
    assert "lineage" in tinygpt("artifacts").out
    assert tinygpt("--version").out.startswith("tinygpt 0.")


def outcome_of(
    raised: BaseException, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    def call() -> None:
        raise raised

    code = failures.exit_code(call, list(arguments), Signals(), str)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "x"),
            8,
            "error: cannot use `x`: no space left on device",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "x"),
            8,
            "error: cannot use `x`: permission denied",
        ),
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
        (MemoryError(), 1, "error: the memory is full\n\nhint: end other programs; or"),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            1,
            "`train.batch_size` with more `train.grad_accum_steps`; or use a smaller model",
        ),
        (BaseException('Os { code: 12, message: "Cannot allocate memory" }'), 1, "memory is full"),
        (RuntimeError("std::bad_alloc"), 1, "error: the memory is full"),
        (
            ZeroDivisionError("division\nby zero"),
            1,
            "error: unexpected ZeroDivisionError: division by zero\n\nhint: `--debug` shows",
        ),
        (StorageError("no", hint=None), 8, "error: no\n"),
    ],
)
def test_every_failure_has_its_code_and_no_traceback(raised, code, said, capsys):
    got, err = outcome_of(raised, capsys)
    assert got == code
    assert said in err
    assert "Traceback" not in err


def test_what_torch_says_of_too_large_a_tensor_is_that_the_memory_is_full(capsys):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    code, err = outcome_of(caught.value, capsys)
    assert code == 1
    assert err.startswith("error: the memory is full\n")


def test_debug_shows_the_traceback(capsys):
    code, err = outcome_of(ZeroDivisionError("x"), capsys, "--debug")
    assert code == 1
    assert "Traceback" in err


def test_a_closed_pipe_is_quiet(capsys):
    assert outcome_of(BrokenPipeError(errno.EPIPE, "Broken pipe"), capsys) == (141, "")


@pytest.mark.parametrize(
    ("stopped", "code"), [("signals.Stopped", 143), ("KeyboardInterrupt", -signal.SIGINT)]
)
def test_a_signal_within_exec_keeps_its_exit_code(stopped: str, code: int, tmp_path: Path):
    """As in the import of any dataclass.

    The control: with Python's own exception the exit code would be lost.
    """
    (tmp_path / "interrupted.py").write_text(
        "import signal, sys\nfrom tinygpt.cli import failures, signals\n"
        f"signals.Stopped = {stopped}\n"
        "run = lambda: exec('signal.raise_signal(signal.SIGTERM)')\n"
        "sys.exit(failures.exit_code(run, [], signals.Signals(), str))\n"
    )
    there = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"], env=there, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr


def test_a_signal_interrupts_or_is_noted_and_the_second_one_interrupts():
    signals = Signals()
    before = signal.getsignal(signal.SIGTERM)
    with signals.caught(), signals.deferred():
        assert signals.received is None
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    fresh = Signals()
    with fresh.caught(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_sigterm_exits_143(capsys):
    signals = Signals()
    assert (
        failures.exit_code(lambda: signal.raise_signal(signal.SIGTERM), ["tokenize"], signals, str)
        == 143
    )
    assert "stopped by SIGTERM" in capsys.readouterr().err


class TestCommandsAsTyped:
    """Hints and `next:` lines can be pasted."""

    def call(self, **chosen: object) -> options.Call:
        return options.Call([], options=options.Options(**chosen))

    def test_suggested_commands_repeat_the_run_and_the_store(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["tinygpt"])
        call = self.call(preset="demo", store=Path("my store"), sets=["train.max_steps=5"])
        typed = "tinygpt run --until train --preset demo --set train.max_steps=5 --store 'my store'"
        assert call.rephrase("do `tinygpt run --until train` now") == f"do `{typed}` now"

    def test_suggested_commands_do_not_repeat_flags_they_have(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["tinygpt"])
        call = self.call(preset="demo", store=Path("s"), source="a.txt")
        assert (
            call.command("run --preset laptop --source b.txt")
            == "tinygpt run --preset laptop --source b.txt --store s"
        )
        assert call.command("sample --help") == "tinygpt sample --help"
        assert call.command("artifacts ls") == "tinygpt artifacts ls --store s"

    def test_a_flag_of_training_is_repeated_as_the_key_it_sets(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["tinygpt"])
        call = self.call()
        call.flags = {"train.max_steps": ("--max-steps", 5), "sample.top_p": ("--top-p", 0.9)}
        assert call.command("eval") == "tinygpt eval --set train.max_steps=5"

    def test_a_model_that_flags_made_is_suggested_by_its_id(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["tinygpt"])
        call = self.call(
            config=Path("my.toml"),
            store=Path("s"),
            source="a.txt",
            sets=["model.d_model=8", "train.seed=7", "eval.num_samples=2"],
        )
        call.flags = {"train.max_steps": ("--max-steps", 5)}
        assert call.sets_recipe
        assert (
            call.command("sample --model 3f9a")
            == "tinygpt sample --model 3f9a --config my.toml --set eval.num_samples=2 --store s"
        )
        for unchanged in (self.call(preset="demo"), self.call(sets=["sample.seed=1"])):
            assert not unchanged.sets_recipe

    @pytest.mark.parametrize(
        ("called", "shown"),
        [
            (".venv/bin/tinygpt", ".venv/bin/tinygpt"),
            ("{cwd}/.venv/bin/tinygpt", ".venv/bin/tinygpt"),
            ("/elsewhere/bin/tinygpt", "/elsewhere/bin/tinygpt"),
            ("{cwd}/on path/tinygpt", "tinygpt"),
            ("pytest", "tinygpt"),
        ],
    )
    def test_the_program_is_named_as_it_was_called(self, called, shown, monkeypatch, tmp_path):
        on_path = tmp_path / "on path" / "tinygpt"
        on_path.parent.mkdir()
        on_path.touch(mode=0o755)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", str(on_path.parent))
        monkeypatch.setattr(sys, "argv", [called.format(cwd=tmp_path)])
        assert options.program() == shown

    def test_a_module_is_named_with_its_python(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["/x/tinygpt/__main__.py"])
        assert options.program().endswith("-m tinygpt")


def test_config_show_says_where_each_value_came_from(tinygpt):
    result = tinygpt("config", "show", "--preset", "laptop", "--set", "train.seed=7")
    assert result.code == 0
    assert "seed = 7  # --set" in result.out
    assert "# preset laptop" in result.out
    assert tinygpt("config", "show", "--format", "yaml").out.startswith("data:\n")
    assert tinygpt("config", "show", "--format", "json").out.startswith("{")
    assert tinygpt("config", "show", "--format", "xml").code == 2


def test_init_writes_once_and_says_what_to_type(tinygpt, tmp_path):
    (tmp_path / "my.txt").write_text("A story.\n")
    result = tinygpt("init", "mine", "--preset", "laptop", "--source", "my.txt")
    assert (result.code, result.out) == (0, "")
    assert "next: cd mine" in result.err
    written = (tmp_path / "mine" / "tinygpt.toml").read_text()
    assert "my.txt" in written
    again = tinygpt("init", "mine", "--preset", "demo")
    assert again.code == 2
    assert "already exists" in again.err
    assert (tmp_path / "mine" / "tinygpt.toml").read_text() == written


def test_an_error_of_ours_is_passed_on_as_it_is():
    error = TinygptError("x")
    assert failures.as_user_error(error) is error
