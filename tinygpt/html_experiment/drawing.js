// Charts of an experiment: the curves of all cells, and the differences by seed with intervals.

const COLORS = ["var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)"];
const ROW = 34; // height of a comparison

const colorOf = (arm) => COLORS[arm % COLORS.length];
const dashOf = (arm) => DASHES[Math.floor(arm / COLORS.length) % DASHES.length];

// Draw into a figure now, and again whenever its width changes
function drawing(figure, title, legend, draw) {
  const box = el("div");
  figure.append(el("figcaption", {}, title), el("div", { class: "legend" }, ...legend), box);
  let width = -1;
  const redraw = () => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    box.replaceChildren(draw(Math.max(NARROWEST, width)));
  };
  new ResizeObserver(redraw).observe(box);
  redraw();
}

function armLegend(names) {
  return names.map((name, arm) => {
    const ends = { x1: 0, x2: 32, y1: 6, y2: 6 };
    const style = lineStyle({ color: colorOf(arm), dash: dashOf(arm) });
    const stroke = svg("line", { class: "curve", style, ...ends });
    return el("span", {}, svg("svg", { viewBox: "0 0 32 12" }, stroke), name);
  });
}

// Every cell as a thin line, and the mean of each arm as a thick one
function drawCurves(figure, names, curves) {
  const lines = curves.map(({ arm, tokens, bits }) => ({
    x: tokens,
    y: bits,
    color: colorOf(arm),
    dash: dashOf(arm),
    opacity: 0.35,
  }));
  names.forEach((_, arm) => {
    const own = curves.filter((curve) => curve.arm === arm);
    if (own.length) lines.push(meanLine(own, arm));
  });
  if (!lines.length) return;
  const title = "Bits per byte of the validation split by training tokens: all cells, and their means";
  drawing(figure, title, armLegend(names), (width) => {
    const spec = { title, xLabel: "training tokens", lines, height: 360 };
    return drawPicture(spec, makeFrame(spec, width));
  });
}

function meanLine(curves, arm) {
  const { tokens } = curves[0];
  const mean = (i) => curves.reduce((sum, { bits }) => sum + bits[i], 0) / curves.length;
  const y = tokens.map((_, i) => mean(i));
  return { x: tokens, y, color: colorOf(arm), dash: dashOf(arm) };
}

// A row for each comparison: a point for each seed, bars for the intervals
function drawDifferences(figure, comparisons) {
  const shown = comparisons.filter(({ differences }) => differences.length);
  if (!shown.length) return;
  const values = shown.flatMap((one) => [
    0,
    ...one.differences,
    ...(one.intervals["95 % over seeds"] || []),
    ...(one.intervals["95 % over documents"] || []),
  ]);
  const title =
    "Differences in bits per byte: a point for each seed; thick: 95 % over seeds, thin: over documents";
  drawing(figure, title, [], (width) => {
    const height = 24 + ROW * 1.6 * shown.length;
    const [low, high] = extremes(values);
    const room = 0.04 * (high - low || 1);
    const range = [low - room, high + room];
    const x = scale(range, [8, width - 8], false);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": title });
    for (const tick of ticks(range, false, Math.max(2, Math.floor(width / 90)))) {
      const place = { x1: x(tick), x2: x(tick), y1: 4, y2: height - 20 };
      const label = { x: x(tick), y: height - 4, "text-anchor": "middle" };
      picture.append(svg("line", { class: tick ? "axis" : "base", ...place }));
      picture.append(svg("text", label, short(tick)));
    }
    shown.forEach((one, place) => {
      const top = 4 + ROW * 1.6 * place;
      picture.append(...differenceRow(one, top, x));
    });
    return picture;
  });
}

function differenceRow(one, top, x) {
  const color = "var(--c0)";
  const drawn = [svg("text", { x: 12, y: top + 12 }, `${one.arm} against ${one.baseline}`)];
  const bar = (interval, y, width) =>
    interval &&
    drawn.push(
      svg("line", {
        x1: x(interval[0]),
        x2: x(interval[1]),
        y1: y,
        y2: y,
        style: `stroke:var(--c1);stroke-width:${width}`,
      }),
    );
  bar(one.intervals["95 % over seeds"], top + 36, 5);
  bar(one.intervals["95 % over documents"], top + 44, 2);
  for (const difference of one.differences) {
    const style = `fill:${color};opacity:0.75`;
    drawn.push(svg("circle", { cx: x(difference), cy: top + 24, r: 4, style }));
  }
  return drawn;
}
