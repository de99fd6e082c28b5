"""Pictures: the same bytes each time, no text over another, and nothing that a story holds can break them."""

import itertools
import warnings
from collections.abc import Callable, Iterator

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tinygpt.config import ModelConfig
from tinygpt.figures.attention import head_maps, overview
from tinygpt.figures.curves import compared, training_curves
from tinygpt.figures.findings import Curves, Findings, smooth, token_labels
from tinygpt.figures.style import Format, drawable, style, to_bytes
from tinygpt.figures.weights import histograms, norms_by_layer, singular_values
from tinygpt.lm import analysis
from tinygpt.lm.analysis import HeadWorth, Look
from tinygpt.lm.model import GPT, initialise

BASELINES = {"uniform": 5.0, "untrained": 5.01, "unigram": 4.0, "bigram": 3.0, "trigram": 2.5}
HOSTILE = [
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


def curves(steps: int) -> Curves:
    rows: list[dict[str, object]] = []
    for step in range(1, steps + 1):
        loss = 2 + 3 / step**0.5
        rows.append(
            {"kind": "step", "step": step, "tokens": 64 * step, "loss": loss, "learning_rate": 1e-3, "grad_norm": 1 / step}
        )
        if step in (1, 10, 100, steps):
            rows.append({"kind": "eval", "step": step, "tokens": 64 * step, "val_loss": loss + 0.1, "story": f"after {step}"})
    return Curves.from_rows(rows)


def looks(layers: int, heads: int, tokens: int) -> list[Look]:
    config = ModelConfig(d_model=2 * heads, n_layers=layers, n_heads=heads, d_ff=8, context_length=64)
    ids = np.random.default_rng(0).integers(0, 70, tokens).tolist()
    return [Look.at(initialise(GPT(config, 70), seed), ids, step) for seed, step in enumerate((0, 1, 10, 1000))]


def attention(layers: int, heads: int, tokens: int, *, worth: bool = True) -> Findings:
    look = looks(layers, heads, tokens)[-1]
    change = np.linspace(-0.1, 0.3, layers * heads).reshape(layers, heads)
    labels = list(itertools.islice(itertools.cycle(HOSTILE), tokens))
    return Findings(labels, curves(1), {}, ({}, {}), [look], HeadWorth(2.0, change, change / 9, 8192) if worth else None)


def weights(layers: int) -> tuple[GPT, GPT]:
    config = ModelConfig(d_model=8, n_layers=layers, n_heads=2, d_ff=16, context_length=16)
    return initialise(GPT(config, 50), 0), initialise(GPT(config, 50), 1)


def draw_histograms(layers: int) -> Figure:
    return histograms(*(analysis.parts(analysis.arrays_of(model)) for model in weights(layers)), 0)


def draw_spectra(draw: Callable[..., Figure], layers: int) -> Figure:
    return draw(*(analysis.spectra(analysis.arrays_of(model)) for model in weights(layers)))


PICTURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: training_curves(curves(300), BASELINES),
    "curves of one step": lambda: training_curves(curves(1), BASELINES),
    "seven runs": lambda: compared({f"{steps:012x}": curves(steps) for steps in (1, 2, 9, 30, 100, 200, 300)}),
    "curves without baselines": lambda: training_curves(curves(7), {}),
    "head": lambda: next(head_maps(attention(4, 4, 56)))[2],
    "head of 144": lambda: next(head_maps(attention(12, 12, 40)))[2],
    "head on one token": lambda: next(head_maps(attention(1, 1, 1)))[2],
    "head not ablated": lambda: next(head_maps(attention(2, 2, 9, worth=False)))[2],
    "overview 1 x 1": lambda: overview(attention(1, 1, 1)),
    "overview 4 x 4": lambda: overview(attention(4, 4, 40)),
    "overview 12 x 12": lambda: overview(attention(12, 12, 30)),
    "histograms": lambda: draw_histograms(2),
    "norms of 1 layer": lambda: draw_spectra(norms_by_layer, 1),
    "norms of 12 layers": lambda: draw_spectra(norms_by_layer, 12),
    "singular values of 12 layers": lambda: draw_spectra(singular_values, 12),
}


def drawn_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> dict[Text, Bbox]:
    """Every text that is really drawn (an axis keeps labels beyond its limits, which are not), and where."""
    texts: dict[Text, Bbox] = {}
    draw = Text.draw

    def noting(self: Text, renderer: RendererAgg) -> None:
        if self.get_visible() and self.get_text().strip():
            texts[self] = self.get_window_extent(renderer)
        draw(self, renderer)

    monkeypatch.setattr(Text, "draw", noting)
    FigureCanvasAgg(figure).draw()
    return texts


def clashes(figure: Figure, texts: dict[Text, Bbox]) -> list[str]:
    """What is wrong with where texts lie, in words."""
    found = []
    for text, box in texts.items():
        if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1:
            found.append(f"{text.get_text()!r} leaves the picture")
    for (text, box), (other, other_box) in itertools.combinations(texts.items(), 2):
        shared = Bbox.intersection(box, other_box)
        if shared is not None and min(shared.width, shared.height) >= 2:  # pixels: boxes are larger than their ink
            found.append(f"{text.get_text()!r} lies over {other.get_text()!r}")
    return found


QUICK = ("curves of one step", "head on one token", "norms of 1 layer")  # the others in `make test-full`


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in PICTURES])
def test_no_text_lies_over_another_or_beyond_the_edge(name: str, monkeypatch: pytest.MonkeyPatch):
    with style():
        figure = PICTURES[name]()
        texts = drawn_texts(figure, monkeypatch)
    assert len(texts) > 3
    assert not clashes(figure, texts)


@pytest.mark.parametrize("draw", [norms_by_layer, singular_values])
def test_every_value_lies_within_its_axes(draw: Callable[..., Figure]):
    first, second = (
        analysis.spectra({k: v * size for k, v in analysis.arrays_of(model).items()})
        for model, size in zip(weights(3), (1, 9), strict=True)
    )
    for spectra in ((first, second), (second, first)):
        figure = draw(*spectra)
        for axes in figure.axes:
            (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
            points = np.concatenate([line.get_xydata() for line in axes.get_lines()])
            assert ((x0, y0) <= points.min(0)).all()
            assert (points.max(0) <= (x1, y1)).all()


def test_texts_that_clash_are_found(monkeypatch: pytest.MonkeyPatch):
    with style():
        figure = Figure(figsize=(2, 2))
        for x, y, text in ((0.1, 0.5, "one"), (0.15, 0.5, "two"), (0.95, 0.9, "three")):
            figure.text(x, y, text)
        assert clashes(figure, drawn_texts(figure, monkeypatch)) == ["'three' leaves the picture", "'one' lies over 'two'"]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("curves of one step", "png"),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in (("curves", "svg"), ("head", "png"), ("head", "svg"), ("histograms", "svg"))
        ),
    ],
)
def test_equal_numbers_give_equal_bytes_whatever_the_settings_of_the_user(name: str, format: Format):
    def draw() -> bytes:
        with style():
            return to_bytes(PICTURES[name](), format)

    first = draw()
    with matplotlib.rc_context(
        {"font.size": 20, "savefig.dpi": 30, "axes.grid": False, "text.usetex": False, "svg.hashsalt": "x"}
    ):
        assert draw() == first
    assert b"<dc:date>" not in first
    assert b"Matplotlib v" not in first


def test_pictures_leave_the_settings_of_the_user_alone():
    before = dict(matplotlib.rcParams)
    with style():
        pass
    assert dict(matplotlib.rcParams) == before


def test_characters_without_a_glyph_are_spelled_out():
    assert drawable("a$b ␣↵⇥…é") == "a$b ␣↵⇥…é"
    assert drawable("漢\x1b\u202e\U000f0000") == "⟨6F22⟩⟨1B⟩⟨202E⟩⟨F0000⟩"


def test_smoothing_neither_lags_nor_bends_a_line():
    line = np.arange(50.0)
    np.testing.assert_allclose(smooth(line, 7), line)
    np.testing.assert_allclose(smooth(line, 1), line)
    noise = np.random.default_rng(0).normal(size=400)
    assert smooth(noise, 20)[20:-20].std() < 0.4


def test_the_best_evaluation_is_the_lowest_not_the_last():
    run = curves(300)
    worse = Curves(**{**vars(run), "eval_loss": np.array([5.0, 2.0, 3.0, 4.0])})
    assert worse.best == 1
    assert run.tokens_per_step == 64
    assert run.stories[0] == "after 1"


@given(st.binary(max_size=30))
def test_every_token_has_a_short_label_that_can_be_seen(token: bytes):
    (label,) = token_labels([token])
    assert 1 <= len(label) <= 12
    assert not any(character in label for character in " \n\t\r")


def test_labels_show_spaces_line_breaks_and_broken_characters():
    tokens = [b" was", b"\n\n", b"\xf0\x9f", b"", "é".encode(), b"extraordinarily"]
    assert token_labels(tokens) == ["␣was", "↵↵", "\\xf0\\x9f", "<end>", "é", "extraordina…"]
