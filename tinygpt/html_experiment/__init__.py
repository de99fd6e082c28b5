"""The page of an experiment: one HTML file; html_shared says why it can be trusted."""

from collections.abc import Mapping

from tinygpt.html_shared import assemble, embedded_json

SHARED = ("elements.js", "chart.js")
SCRIPTS = ("drawing.js", "page.js")


def render(contents: Mapping[str, object]) -> bytes:
    """The page as an HTML file; equal contents give equal bytes.

    Args:
        contents: "plan" and "result" (records of experiments), "curves" of the cells, "lineage",
            and the "command" that repeats the experiment.
    """
    return assemble(__package__, SHARED, SCRIPTS, {"data": embedded_json(contents)})
