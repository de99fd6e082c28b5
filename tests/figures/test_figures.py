"""Pictures have the same bytes each time and no overlapping text, whatever the tokens are."""

import itertools
import warnings
from collections.abc import Callable, Iterator

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tests.analysis.examples import training_curves as example_curves
from tinygpt.analysis.ablation import HeadAblation
from tinygpt.analysis.model_analysis import ModelAnalysis
from tinygpt.analysis.run_analysis import RunAnalysis
from tinygpt.analysis.weight_groups import arrays_of, spectra, weight_groups
from tinygpt.config import ModelConfig
from tinygpt.figures.attention import head_maps, overview
from tinygpt.figures.curves import compared, training_curves
from tinygpt.figures.style import Format, drawable, style, to_bytes
from tinygpt.figures.weights import histograms, norms_by_layer, singular_values
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT

BASELINES = {"uniform": 5.0, "untrained": 5.01, "unigram": 4.0, "bigram": 3.0, "trigram": 2.5}
DIFFICULT_LABELS = [
    "$x_1$",
    "\\frac",
    "\U0001f600\U0001f600\U0001f600",
    "שלום",
    "漢字",
    "\x1b[31m",
    "\u202e",
    "<end>",
    "%",
    "{",
    "^",
    "extraordina…",
]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def run_analysis(layers: int, heads: int, tokens: int, *, ablation: bool = True) -> RunAnalysis:
    """The analysis of an untrained model on a text of difficult tokens."""
    config = ModelConfig(
        d_model=2 * heads, n_layers=layers, n_heads=heads, d_ff=8, context_length=64
    )
    ids = np.random.default_rng(0).integers(0, 70, tokens).tolist()
    increase = np.linspace(-0.1, 0.3, layers * heads).reshape(layers, heads)
    return RunAnalysis(
        labels=list(itertools.islice(itertools.cycle(DIFFICULT_LABELS), tokens)),
        curves=example_curves(1),
        baselines={},
        weights=({}, {}),
        snapshots=[ModelAnalysis.of(init_weights(GPT(config, 70), 3), ids, 1000)],
        ablation=HeadAblation(2.0, increase, abs(increase) / 9, 8192) if ablation else None,
    )


def weights(layers: int, seed: int) -> dict[str, np.ndarray]:
    config = ModelConfig(d_model=8, n_layers=layers, n_heads=2, d_ff=16, context_length=16)
    return arrays_of(init_weights(GPT(config, 50), seed))


def draw_histograms(layers: int) -> Figure:
    final, initial = weight_groups(weights(layers, 0)), weight_groups(weights(layers, 1))
    return histograms(final, initial, 0)


def draw_spectra(draw: Callable[..., Figure], layers: int) -> Figure:
    return draw(spectra(weights(layers, 0)), spectra(weights(layers, 1)))


def draw_seven_runs() -> Figure:
    counts = (1, 2, 9, 30, 100, 200, 300)
    return compared({f"{steps:012x}": example_curves(steps) for steps in counts})


def draw_head(layers: int, heads: int, tokens: int, *, ablation: bool = True) -> Figure:
    _, _, figure = next(head_maps(run_analysis(layers, heads, tokens, ablation=ablation)))
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: training_curves(example_curves(300), BASELINES),
    "curves of one step": lambda: training_curves(example_curves(1), BASELINES),
    "seven runs": draw_seven_runs,
    "curves without baselines": lambda: training_curves(example_curves(7), {}),
    "head": lambda: draw_head(4, 4, 56),
    "head of 144": lambda: draw_head(12, 12, 40),
    "head on one token": lambda: draw_head(1, 1, 1),
    "head not ablated": lambda: draw_head(2, 2, 9, ablation=False),
    "overview 1 x 1": lambda: overview(run_analysis(1, 1, 1)),
    "overview 4 x 4": lambda: overview(run_analysis(4, 4, 40)),
    "overview 12 x 12": lambda: overview(run_analysis(12, 12, 30)),
    "histograms": lambda: draw_histograms(2),
    "histograms of an imported model": lambda: histograms(weight_groups(weights(2, 0)), None, 0),
    "norms of an imported model": lambda: norms_by_layer(spectra(weights(2, 0)), None),
    "singular values of an imported model": lambda: singular_values(spectra(weights(2, 0)), None),
    "norms of 1 layer": lambda: draw_spectra(norms_by_layer, 1),
    "norms of 12 layers": lambda: draw_spectra(norms_by_layer, 12),
    "singular values of 12 layers": lambda: draw_spectra(singular_values, 12),
}
QUICK = ("curves of one step", "head on one token", "norms of 1 layer")


def full_unless_quick(name: str, *others: object) -> object:
    """A test case; slow pictures are drawn by `make test-full` only."""
    return pytest.param(name, *others, marks=() if name in QUICK else pytest.mark.full)


def drawn_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> dict[Text, Bbox]:
    """Every text that is really drawn, and where; an axis also keeps labels that are not drawn."""
    texts: dict[Text, Bbox] = {}
    draw = Text.draw

    def draw_and_note(self: Text, renderer: RendererAgg) -> None:
        if self.get_visible() and self.get_text().strip():
            texts[self] = self.get_window_extent(renderer)
        draw(self, renderer)

    monkeypatch.setattr(Text, "draw", draw_and_note)
    FigureCanvasAgg(figure).draw()
    return texts


def misplaced(figure: Figure, texts: dict[Text, Bbox]) -> list[str]:
    """Texts that overlap or leave the picture, in words."""
    found = []
    for text, box in texts.items():
        if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1:
            found.append(f"{text.get_text()!r} leaves the picture")
    for (text, box), (other, other_box) in itertools.combinations(texts.items(), 2):
        shared = Bbox.intersection(box, other_box)
        # Less than 2 pixels is no overlap: boxes are larger than their ink
        if shared is not None and min(shared.width, shared.height) >= 2:
            found.append(f"{text.get_text()!r} lies over {other.get_text()!r}")
    return found


@pytest.mark.parametrize("name", [full_unless_quick(name) for name in PICTURES])
def test_texts_neither_overlap_nor_leave_the_picture(name: str, monkeypatch: pytest.MonkeyPatch):
    with style():
        figure = PICTURES[name]()
        texts = drawn_texts(figure, monkeypatch)
    assert len(texts) > 3
    assert not misplaced(figure, texts)


def test_misplaced_texts_are_found(monkeypatch: pytest.MonkeyPatch):
    with style():
        figure = Figure(figsize=(2, 2))
        for x, y, text in ((0.1, 0.5, "one"), (0.15, 0.5, "two"), (0.95, 0.9, "three")):
            figure.text(x, y, text)
        found = misplaced(figure, drawn_texts(figure, monkeypatch))
    assert found == ["'three' leaves the picture", "'one' lies over 'two'"]


@pytest.mark.parametrize("draw", [norms_by_layer, singular_values])
def test_every_value_lies_within_its_axes(draw: Callable[..., Figure]):
    small = spectra(weights(3, 0))
    large = spectra({name: 9 * array for name, array in weights(3, 1).items()})
    for final, initial in ((small, large), (large, small)):
        for axes in draw(final, initial).axes:
            (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
            points = np.concatenate([line.get_xydata() for line in axes.get_lines()])
            assert (points.min(0) >= (left, bottom)).all()
            assert (points.max(0) <= (right, top)).all()


@pytest.mark.parametrize(
    ("name", "format"),
    [
        full_unless_quick("curves of one step", "png"),
        full_unless_quick("curves", "svg"),
        full_unless_quick("head", "png"),
        full_unless_quick("head", "svg"),
        full_unless_quick("histograms", "svg"),
    ],
)
def test_bytes_do_not_depend_on_date_version_or_user_settings(name: str, format: Format):
    def draw() -> bytes:
        with style():
            return to_bytes(PICTURES[name](), format)

    user_settings = {
        "font.size": 20,
        "savefig.dpi": 30,
        "axes.grid": False,
        "text.usetex": False,
        "svg.hashsalt": "x",
    }
    first = draw()
    with matplotlib.rc_context(user_settings):
        assert draw() == first
    assert b"<dc:date>" not in first
    assert b"Matplotlib v" not in first


def test_style_leaves_the_settings_of_the_user_as_they_were():
    before = dict(matplotlib.rcParams)
    with style():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before


def test_characters_without_a_glyph_become_code_points():
    assert drawable("a$b ␣↵⇥…é") == "a$b ␣↵⇥…é"
    assert drawable("漢\x1b\u202e\U000f0000") == "⟨6F22⟩⟨1B⟩⟨202E⟩⟨F0000⟩"


def test_head_map_says_what_its_axes_show_and_how_much_the_head_matters():
    with style():
        figure = draw_head(2, 2, 9)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "query token" in texts
    assert "key token" in texts
    assert "attention weight (each row sums to 1)" in texts
    ablation = "head ablation: loss increase -0.1000 ± 0.0111 nats/token"
    assert any(f"{ablation} on 8,192 validation tokens (rank 4 of 4)" in text for text in texts)
