"""Findings of the checks before a run as text, JSON, PNG and page."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jaxcnn.page import Markup, element, folded, joined, page, table
from jaxcnn.tuning.findings import Finding
from jaxcnn.tuning.preflight import CHECKS, JOB_CHECKS
from jaxcnn.tuning.rendering import as_json, as_line, as_text, draw, draw_curves, told, write_html
from tests.pages import Outline

RATES = np.geomspace(1e-5, 10, 50).tolist()
SMOOTHED = [2.3] * 20 + np.linspace(2.3, 0.5, 20).tolist() + [1.0, 50.0, 1e6]  # ends before the rates do
FINDINGS = [
    Finding("labels", "pass", "0..9 in 4,000 examples", "0..9"),
    Finding("statistics", "fail", "mean 3.1", "0 within 0.1", "set data.mean <1> & divide by 255 " * 8),
    Finding("dropout", "skip", "no dropout", "below 75 %", "never shown in text"),
    Finding("signal", "warn", "falls 340 times $x^{2$", "at most 100 times", "set model.norm=batch",
            curves={"depth": [0, 1, 2], "signal": [1, 0.5, 0.1], "gradient": [1e-3, 1e-2, 1e-1], "dead": [0, 0, 0]}),
    Finding("range test", "pass", "0.31", "near peak_lr", numbers={"suggestion": np.float32(0.31), "bad": float("nan")},
            curves={"rate": RATES, "loss": [*SMOOTHED, float("nan")], "smoothed": SMOOTHED}, seconds=3.2),
    Finding("overfitting", "pass", "0.001", "0.05", curves={"step": [0, 10, 20], "loss": [2.3, 0.1, 0.001]}),
    Finding("shuffled", "pass", "0.3 against 2.3", "lower", curves={"real": [2.3, 0.3], "shuffled": [2.3, 2.3, 2.2]}),
]  # fmt: skip


def test_text_is_escaped_wherever_it_stands() -> None:
    nasty = '<script>alert("&")</script>'
    whole = page(nasty, element("p", nasty, title=nasty), table((nasty,), [(nasty,)]), folded(nasty, joined(nasty)))
    outline = Outline(whole)
    assert "<script" not in whole
    assert outline.text.count(nasty) == 7
    assert dict(outline.elements)["p"] == {"title": nasty}
    assert element("b", Markup("<i>x</i>"), None, hidden=True, id=None) == "<b hidden><i>x</i></b>"


def test_the_text_has_the_verdict_first_and_checks_and_figures_below_each_other() -> None:
    lines = as_text(FINDINGS).splitlines()
    heads = [line for line in lines[:-1] if not line.startswith(" ")]
    assert [line.split()[0] for line in heads] == [one.verdict for one in FINDINGS]
    assert len({line.index(one.figure) for line, one in zip(heads, FINDINGS, strict=True)}) == 1
    assert all(line.endswith(f"expected {one.expected}") for line, one in zip(heads, FINDINGS, strict=True))
    assert [as_line(one, len("overfitting")).splitlines()[0] for one in FINDINGS] == heads
    assert lines[-1] == "4 pass, 1 warn, 1 fail, 1 skip"
    assert all(len(line) < 120 for line in lines)


def test_advice_stands_below_what_is_not_well_and_nowhere_else() -> None:
    text = as_text(FINDINGS)
    assert "      -> set model.norm=batch" in text
    assert " ".join(text.split()).count("divide by 255") == 8
    assert "never shown" not in text


def test_of_no_checks_it_is_said_that_there_are_none(tmp_path: Path) -> None:
    assert told([]) == as_text([]) == "no checks"
    assert as_json([]) == {"verdict": "pass", "findings": []}
    draw([], tmp_path / "none.png", "nothing")
    write_html([], tmp_path / "none.html", "nothing")
    assert "no checks" in (tmp_path / "none.html").read_text()


def test_json_has_every_finding_and_only_what_json_has() -> None:
    found = json.loads(json.dumps(as_json(FINDINGS), allow_nan=False))
    assert found["verdict"] == "fail"
    assert [one["check"] for one in found["findings"]] == [one.check for one in FINDINGS]
    assert found["findings"][4]["numbers"] == {"suggestion": pytest.approx(0.31), "bad": None}
    assert found["findings"][4]["curves"]["loss"][-1] is None
    assert as_json([FINDINGS[0], FINDINGS[2]])["verdict"] == "pass"
    assert as_json([FINDINGS[3], FINDINGS[0]])["verdict"] == "warn"


def test_the_figure_grows_with_the_checks_and_widens_for_curves(tmp_path: Path) -> None:
    sizes = {}
    for name, findings in (("few", FINDINGS[:1]), ("many", FINDINGS[:3] * 10), ("curves", FINDINGS)):
        draw(findings, tmp_path / f"{name}.png", "title $x_{")
        sizes[name] = Image.open(tmp_path / f"{name}.png").size
    assert sizes["many"][1] > sizes["few"][1]
    assert sizes["curves"][0] > sizes["many"][0] == sizes["few"][0]
    assert len(list(tmp_path.iterdir())) == 3


def test_curves_are_drawn_over_what_they_are_of() -> None:
    def drawn(place: int) -> tuple:
        axes = Figure().subplots()
        draw_curves(FINDINGS[place], axes)
        return axes, {line.get_label(): line for line in axes.lines}

    axes, lines = drawn(3)
    assert axes.get_xlabel() == "layer"
    assert axes.get_yscale() == "log"
    np.testing.assert_allclose(lines["gradient"].get_ydata(), [1e-3, 1e-2, 1e-1])
    assert "dead" not in lines  # which is nowhere above 0
    axes, lines = drawn(4)
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(lines["smoothed"].get_xdata(), RATES[: len(SMOOTHED)])
    assert lines["suggestion 0.31"].get_xdata()[0] == pytest.approx(0.31)
    assert axes.get_ylim()[1] < 10  # what diverges is out of view
    axes, lines = drawn(5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss")
    axes, lines = drawn(6)  # not as long as each other: each over its places
    np.testing.assert_allclose(lines["shuffled"].get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(lines["real"].get_ydata(), [2.3, 0.3])


@pytest.mark.parametrize("layout", ["constrained", None])
def test_the_names_of_curves_by_layer_are_beside_them(layout: str | None) -> None:
    figure = Figure((5.0, 3.0), layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.2, 0.7, 0.7)) if layout is None else figure.subplots()
    draw_curves(FINDINGS[3], axes)
    figure.canvas.draw()
    legend, plot = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert legend.x0 >= plot.x1
    assert legend.x1 <= figure.bbox.x1


def test_the_noise_of_a_range_test_is_in_view_and_its_end_is_not() -> None:
    rng, calm = np.random.default_rng(0), np.linspace(2.3, 2.2, 50)
    smoothed = np.concatenate([calm, np.geomspace(2.3, 1e4, 20)])
    noise = np.concatenate([rng.uniform(-0.5, 0.5, 50), np.zeros(20)])
    curves = {"rate": np.geomspace(1e-5, 10, 70).tolist(), "loss": (smoothed + noise).tolist()}
    axes = Figure().subplots()
    draw_curves(
        Finding("learning rate in range", "pass", "", "", curves={**curves, "smoothed": smoothed.tolist()}), axes
    )
    low, high = axes.get_ylim()
    raw = np.asarray(curves["loss"][:50])
    assert low < np.percentile(raw, 3)
    assert 2.3 < high < 4


def test_losses_of_real_and_shuffled_labels_are_both_drawn_over_the_steps_that_each_has() -> None:
    curves = {"step": [0, 5, 10], "real": [2.3, 0.9, 0.3], "shuffled": [2.3, 2.4]}
    axes = Figure().subplots()
    draw_curves(Finding("real labels beat shuffled ones", "pass", "", "", curves=curves), axes)
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["real"].get_xdata(), [0, 5, 10])
    np.testing.assert_allclose(lines["shuffled"].get_xdata(), [0, 5])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["real", "shuffled"]
    assert axes.get_xlabel() == "step"


def test_figures_of_the_longest_names_stand_below_each_other() -> None:
    checks = [check.__name__.replace("_", " ") for check in (*CHECKS, *JOB_CHECKS)]
    assert len({as_line(Finding(check, "pass", "FIGURE", "")).index("FIGURE") for check in checks}) == 1


def test_the_page_has_every_check_its_curves_and_the_sheet(tmp_path: Path) -> None:
    draw(FINDINGS[:1], tmp_path / "sheet.png", "sheet")
    write_html(FINDINGS, tmp_path / "p.html", "a <b> run", {"augmented <samples>": tmp_path / "sheet.png"})
    outline = Outline((tmp_path / "p.html").read_text())
    assert outline.needs_nothing_else
    for one in FINDINGS:
        assert one.figure in outline.text
        assert one.advice in outline.text
    assert "augmented <samples>" in outline.text
    assert [tag for tag, _ in outline.elements].count("svg") == 4
    assert outline.images == [(tmp_path / "sheet.png").read_bytes()]
