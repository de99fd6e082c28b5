"""tools/mutants.py finds the protections that it takes away; `make mutants` runs it."""

import ast

from tools.mutants import PACKAGE, mutants

SOURCE = """
def publish(store, folder, target):
    with store.hold("é", 3), other():
        if not folder.exists():
            raise ValueError("missing")
        os.fsync(folder)
        found = folder.rename(target)
    return os.open(target, os.O_RDONLY | os.O_NOFOLLOW)
"""


def test_a_call_a_check_a_lock_and_a_flag_are_taken_away_one_at_a_time() -> None:
    found = list(mutants("store/x.py", SOURCE))
    assert [(mutant.line, mutant.what) for mutant in found] == [
        (3, "no `store.hold('é', 3)`"),
        (4, "no error if `not folder.exists()`"),
        (6, "no `os.fsync(folder)`"),
        (8, "no `O_NOFOLLOW`"),
    ]
    by_line = {mutant.line: mutant.source.splitlines()[mutant.line - 1] for mutant in found}
    assert "nullcontext(), other():" in by_line[3]
    assert "if False:" in by_line[4]
    assert by_line[6].strip() == "pass"
    assert by_line[8].endswith("os.O_RDONLY | 0)")


def test_every_fsync_and_every_lock_of_the_store_has_a_mutant() -> None:
    """All that are calls; each differs from the source in one place and can be parsed."""
    for path in sorted((PACKAGE / "store").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        found = list(mutants(path.name, source))
        missing = {mutant.line for mutant in found}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                name = ast.unparse(node.value.func)
                assert "fsync" not in name or node.lineno in missing, (path.name, name)
        assert all(mutant.source != source for mutant in found)
