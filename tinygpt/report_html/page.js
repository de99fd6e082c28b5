const D = JSON.parse($("data").textContent);
const T = D.labels.length,
  looks = D.looks,
  L = looks[0].scores.entropy.length,
  H = looks[0].scores.entropy[0].length;
const worths = D.worth ? D.worth.change.flat() : [0];
const dearest = worths.indexOf(Math.max(...worths));
const state = {
  look: looks.length - 1,
  layer: Math.floor(dearest / H),
  head: dearest % H,
  row: T - 1,
  column: T - 1,
  token: Math.min(1, T - 1),
};

function table(titles, rows) {
  const cell = (content) => (content instanceof HTMLTableCellElement ? content : el("td", {}, content));
  const body = rows.map(({ own, cells }) => el("tr", own ? { class: "own" } : {}, ...cells.map(cell)));
  return [el("thead", {}, el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)))), el("tbody", {}, ...body)];
}
const pairs = (entries) =>
  el("tbody", {}, ...entries.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value))));

// --- what was trained, how well, and how it went ---
const whole = (x) => say(x, 0);
const { card, dataset, evaluation } = D;
const scores = [
  { name: `this model, step ${whole(card.step)}`, own: true, ...evaluation },
  ...Object.entries(evaluation.baselines).map(([name, score]) => ({ name, own: false, ...score })),
].sort((a, b) => a.loss - b.loss);
function about() {
  const m = card.model,
    shape = `${m.n_layers} layers of ${m.n_heads} heads, width ${m.d_model}, context ${m.context_length}`;
  const text =
    `A GPT of ${whole(D.parameters)} parameters (${shape}, vocabulary ${whole(card.vocab_size)}), ` +
    `trained for ${whole(card.step)} steps of ${whole(D.curves.tokens_per_step)} tokens`;
  const t = dataset.train,
    data = t ? ` on ${whole(t.stories)} stories (${whole(t.tokens)} tokens, ${whole(t.bytes)} bytes)` : "";
  $("about").textContent = `${text}${data}.` + (dataset.label ? ` Note: ${dataset.label}.` : "");
  const e = evaluation,
    spread = e.standard_error === null ? "" : `; the standard error of this model's loss is ${say(e.standard_error, 4)}, by story`;
  $("judged").textContent = `Measured on the ${e.judged}: ${whole(e.stories)} stories, ${whole(e.tokens)} tokens${spread}.`;
}
function head() {
  about();
  const worst = Math.max(...scores.map((s) => s.loss));
  const bar = (loss) => el("td", { class: "bar", "aria-hidden": "true" }, el("i", { style: `width:${(100 * loss) / worst}%` }));
  $("scores").append(
    ...table(
      ["model", "perplexity", "loss [nats]", "bits per byte", ""],
      scores.map((s) => ({
        own: s.own,
        cells: [s.name, say(s.perplexity), say(s.loss, 3), say(s.bits_per_byte, 3), bar(s.loss)],
      })),
    ),
  );
  const c = D.curves,
    best = { x: c.eval_steps[c.best], y: c.eval_loss[c.best] };
  const lines = [
    { name: "train", x: c.steps, y: c.loss, colour: "var(--c0)", opacity: 0.35 },
    { name: "train, smoothed", x: c.steps, y: c.smooth, colour: "var(--c0)" },
  ];
  if (c.eval_steps.length) lines.push({ name: "validation", x: c.eval_steps, y: c.eval_loss, colour: "var(--c1)", dash: "6 3" });
  chart($("loss"), () => ({
    height: 360,
    xLabel: "step",
    lines,
    levels: scores.filter((s) => !s.own && D.comparable).map((s) => ({ name: s.name, y: s.loss })),
    mark: c.eval_steps.length ? best : null,
    title:
      "Loss [nats/token]" +
      (c.eval_steps.length ? `; ★ best validation perplexity ${say(Math.exp(best.y))} at step ${say(best.x, 0)}` : ""),
    read: (y) => `${say(y, 3)} (perplexity ${say(Math.exp(y), 1)})`,
  }));
  chart($("rate"), () => ({
    height: 160,
    title: "Learning rate",
    xLabel: "step",
    zero: true,
    lines: [{ name: "learning rate", x: c.steps, y: c.learning_rate, colour: "var(--c2)" }],
  }));
  chart($("norm"), () => ({
    height: 160,
    title: "Gradient norm before clipping",
    xLabel: "step",
    logY: c.grad_norm.every((y) => y > 0),
    lines: [{ name: "gradient norm", x: c.steps, y: c.grad_norm, colour: "var(--c3)" }],
  }));
}
function slider(input, count, show) {
  input.max = count - 1;
  input.value = count - 1;
  input.disabled = count < 2;
  input.addEventListener("input", () => show(+input.value));
  show(count - 1);
}
function stories() {
  const c = D.curves;
  if (!c.stories.some((story) => story)) {
    $("stories").remove();
    return;
  }
  slider($("told"), c.stories.length, (i) => {
    $("told-at").textContent = `step ${say(c.eval_steps[i], 0)}, validation perplexity ${say(Math.exp(c.eval_loss[i]))}`;
    $("story").textContent = c.stories[i] || "(nothing)";
  });
}
function quality() {
  const q = evaluation.report_card;
  if (!q) {
    $("quality").remove();
    return;
  }
  $("quality-about").textContent =
    `${q.count} stories that the model began by itself (temperature ${q.temperature}, at most ${q.max_tokens} tokens, seed ${q.seed}), beside as many ` +
    `of the validation split, cut to the same length. In brackets 95 % intervals, from random halves of the stories; one of width 0 says only that ` +
    `no two of these ${q.count} differ.`;
  const measures = {
    distinct_1: "distinct-1",
    distinct_2: "distinct-2",
    distinct_3: "distinct-3",
    ended: "stories with a proper end",
    loops: "stories with a loop",
    unseen_words: "words never seen in training",
    longest_match: "longest copy, mean [tokens]",
    memorised: "stories with a copy of 50 tokens or more",
  };
  const cell = (name, e) => {
    const number = (x) => (name === "longest_match" ? say(x, 1) : say(100 * x, 1));
    const unit = name === "longest_match" ? "" : " %";
    return el("td", {}, `${number(e.value)}${unit} `, el("span", { class: "whole" }, `(${number(e.low)} – ${number(e.high)})`));
  };
  const rows = Object.keys(measures).map((name) => ({
    cells: [measures[name], cell(name, q.told[name]), cell(name, q.validation[name])],
  }));
  $("report-card").append(...table(["measure", "stories told", "validation stories"], rows));
  $("made-up").textContent = q.unseen.length ? `Told, but never seen in training: ${q.unseen.slice(0, 40).join(", ")}.` : "";
  const { tokens, text, story, told, origin, training } = q.longest;
  $("copy-about").textContent =
    `Story ${story} of those told has ${whole(tokens)} tokens in one piece that stand in training story ${whole(origin)}, too (both counted ` +
    "from 0). First the story told, then that of the training text:";
  for (const [id, around] of [
    ["copy", told],
    ["origin", training],
  ]) {
    const at = Math.max(0, around.indexOf(text));
    $(id).append(around.slice(0, at), el("mark", {}, text), around.slice(at + text.length));
  }
}

// --- attention: a square of numbers for each head of each look, packed one byte a weight ---
for (const look of looks) look.maps = Uint8Array.from(atob(look.maps), (character) => character.charCodeAt(0));
const SIZE = (T * (T + 1)) / 2;
const weight = (i, j, layer = state.layer, h = state.head) =>
  (looks[state.look].maps[(layer * H + h) * SIZE + (i * (i + 1)) / 2 + j] / 255) ** 2;
const shown = (label) => `“${label}”`;
const thumbs = [],
  cells = [],
  lookTokens = [],
  lossTokens = [];
let ring, rowRing;
const UNIT = 12,
  PAD = 88,
  SIDE = T * UNIT; // of the large map: a cell, the room for labels, all cells
function choose(layer, h) {
  state.layer = layer;
  state.head = h;
  showAttention();
  drawCourses();
}
function move(row, column) {
  if (row < 0 || row >= T || column < 0) return;
  state.row = row;
  state.column = Math.min(column, row);
  showRow();
}
function buildHeads() {
  $("heads").style.gridTemplateColumns = `repeat(${H}, minmax(30px, 120px))`;
  for (let layer = 0; layer < L; layer++)
    for (let h = 0; h < H; h++) {
      const canvas = el("canvas", { width: T, height: T });
      const button = el("button", { type: "button", "aria-label": `layer ${layer}, head ${h}` }, canvas, `${layer}.${h}`);
      button.addEventListener("click", () => choose(layer, h));
      thumbs.push({ canvas, button, layer, h });
      $("heads").append(button);
    }
}
function buildMap() {
  const label = "attention of the chosen head; arrow keys move from cell to cell";
  const s = vector("svg", { viewBox: `0 0 ${SIDE + PAD + 4} ${SIDE + PAD + 4}`, tabindex: 0, role: "img", "aria-label": label });
  const stairs = [];
  for (let i = 0; i < T; i++) {
    for (let j = 0; j <= i; j++)
      cells.push(vector("rect", { class: "cell", x: PAD + j * UNIT, y: i * UNIT, width: UNIT, height: UNIT }));
    stairs.push(`${PAD + i * UNIT},${i * UNIT} ${PAD + (i + 1) * UNIT},${i * UNIT}`);
    const below = `translate(${PAD + i * UNIT + 9.5} ${SIDE + 4}) rotate(-90)`;
    s.append(
      vector("text", { x: PAD - 4, y: i * UNIT + 9.5, "text-anchor": "end" }, D.labels[i]),
      vector("text", { transform: below, "text-anchor": "end" }, D.labels[i]),
    );
  }
  const frame = `${stairs.join(" ")} ${PAD + SIDE},${SIDE} ${PAD},${SIDE} ${PAD},0`;
  rowRing = vector("rect", { class: "here", x: PAD, height: UNIT, style: "stroke-width:1" });
  ring = vector("rect", { class: "here", width: UNIT, height: UNIT });
  s.append(...cells, vector("polyline", { class: "frame", points: frame }), rowRing, ring);
  s.addEventListener("pointermove", (event) => {
    const box = s.getBoundingClientRect(),
      scale = (SIDE + PAD + 4) / box.width / UNIT;
    const row = Math.floor((event.clientY - box.top) * scale);
    const column = Math.floor((event.clientX - box.left) * scale - PAD / UNIT);
    if (column <= row) move(row, column);
  });
  s.addEventListener("keydown", (event) => {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!by) return;
    move(state.row + by[0], state.column + by[1]);
    event.preventDefault();
  });
  $("map").append(s);
}
function buildTokens(host, list, pick) {
  D.labels.forEach((label, i) => {
    const button = el("button", { type: "button" }, label);
    for (const kind of ["pointerenter", "focus", "click"]) button.addEventListener(kind, () => pick(i));
    list.push(button);
    host.append(button, "\u200b");
  });
}

function showAttention() {
  const colour = [47, 127, 208]; // seen on white and on black; the strength is in the opacity
  for (const { canvas, button, layer, h } of thumbs) {
    const pixels = new ImageData(T, T);
    for (let i = 0; i < T; i++)
      for (let j = 0; j <= i; j++) pixels.data.set([...colour, 10 + 245 * Math.sqrt(weight(i, j, layer, h))], 4 * (i * T + j));
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    button.setAttribute("aria-pressed", layer === state.layer && h === state.head);
  }
  let k = 0;
  for (let i = 0; i < T; i++)
    for (let j = 0; j <= i; j++) cells[k++].setAttribute("fill-opacity", Math.sqrt(weight(i, j)).toFixed(3));
  const s = looks[state.look].scores,
    of = (name) => say(s[name][state.layer][state.head]);
  $("head-name").textContent = `Layer ${state.layer}, head ${state.head} at step ${say(looks[state.look].step, 0)}`;
  $("head-about").textContent =
    `entropy ${of("entropy")} bits · previous token ${of("previous_token")} · first token ${of("first_token")} · induction ${of("induction")}` +
    (D.worth ? ` · at the end, without this head: loss ${signed(D.worth.change[state.layer][state.head], 4)} nats/token` : "");
  showRow();
  showTable();
}
function showRow() {
  const { row, column } = state,
    weights = Array.from({ length: row + 1 }, (_, j) => weight(row, j));
  lookTokens.forEach((button, j) => {
    button.style.setProperty("--w", j <= row ? Math.sqrt(weights[j]).toFixed(3) : 0);
    button.setAttribute("aria-pressed", j === row);
  });
  for (const [name, value] of Object.entries({ x: PAD + column * UNIT, y: row * UNIT })) ring.setAttribute(name, value);
  rowRing.setAttribute("y", row * UNIT);
  rowRing.setAttribute("width", (row + 1) * UNIT);
  const most = weights
    .map((w, j) => [w, j])
    .sort((a, b) => b[0] - a[0])
    .slice(0, 3)
    .map(([w, j]) => `${shown(D.labels[j])} ${say(w)}`)
    .join(", ");
  $("looking").textContent =
    `${shown(D.labels[row])} (token ${row}) looks at ${shown(D.labels[column])} (token ${column}) with weight ${say(weights[column])}; most at ${most}`;
}
function showLosses() {
  const losses = looks[state.look].losses,
    i = state.token;
  lossTokens.forEach((button, j) => {
    button.style.setProperty("--w", j ? Math.min(1, losses[j - 1] / 8).toFixed(3) : 0);
    button.setAttribute("aria-pressed", j === i);
  });
  $("losing").textContent = i
    ? `${shown(D.labels[i])}: loss ${say(losses[i - 1])} nats, probability ${say(100 * Math.exp(-losses[i - 1]), 1)} %`
    : `${shown(D.labels[0])} is predicted from nothing`;
}
function showTable() {
  const names = {
    entropy: "entropy [bits]",
    previous_token: "previous token",
    first_token: "first token",
    induction: "induction",
  };
  const s = looks[state.look].scores;
  const rows = thumbs.map(({ layer, h }) => {
    const button = el("button", { type: "button" }, `layer ${layer}, head ${h}`);
    button.addEventListener("click", () => {
      choose(layer, h);
      $("head-name").scrollIntoView();
    });
    const worth = D.worth ? [signed(D.worth.change[layer][h], 4), say(D.worth.standard_error[layer][h], 4)] : [];
    const scores = Object.keys(names).map((name) => say(s[name][layer][h]));
    return { own: layer === state.layer && h === state.head, cells: [button, ...scores, ...worth] };
  });
  const titles = ["head", ...Object.values(names), ...(D.worth ? ["change of loss without it", "standard error"] : [])];
  $("head-table").replaceChildren(...table(titles, rows));
}

// --- what has a step axis ---
const courses = [];
const drawCourses = () => courses.forEach((draw) => draw());
function buildCourses() {
  const later = looks.filter((look) => look.step > 0),
    steps = later.map((look) => look.step);
  if (later.length > 1) {
    const scores = [
      ["previous token", "previous_token", "var(--c0)", "none"],
      ["first token", "first_token", "var(--c1)", "6 3"],
      ["induction", "induction", "var(--c2)", "2 2"],
    ];
    courses.push(
      chart($("head-course"), () => ({
        title: `Scores of layer ${state.layer}, head ${state.head} in the course of training`,
        xLabel: "step",
        logX: true,
        zero: true,
        lines: scores.map(([name, key, colour, dash]) => ({
          name,
          colour,
          dash,
          x: steps,
          y: later.map((look) => look.scores[key][state.layer][state.head]),
        })),
      })),
    );
    courses.push(
      chart($("entropy-course"), () => ({
        title: `Entropy of layer ${state.layer}, head ${state.head} [bits] in the course of training`,
        xLabel: "step",
        logX: true,
        zero: true,
        lines: [
          {
            name: "entropy",
            colour: "var(--c3)",
            x: steps,
            y: later.map((look) => look.scores.entropy[state.layer][state.head]),
          },
        ],
      })),
    );
    if (T > 1)
      courses.push(
        chart($("loss-course"), () => {
          const i = Math.max(1, state.token);
          return {
            title: `Loss of ${shown(D.labels[i])} [nats] in the course of training`,
            xLabel: "step",
            logX: true,
            zero: true,
            height: 180,
            lines: [{ name: "loss", colour: "var(--c0)", x: steps, y: later.map((look) => look.losses[i - 1]) }],
          };
        }),
      );
  }
  const kinds = [...new Set(D.parts.map((part) => part.kind))];
  $("kind").append(...kinds.map((kind) => el("option", { value: kind }, kind)));
  $("kind").value = D.parts.find((part) => part.layer === 0).kind;
  const chosen = () => D.parts.map((part, i) => ({ ...part, i })).filter((part) => part.kind === $("kind").value);
  const nameOf = (part) => (part.layer === null ? part.kind : `layer ${part.layer}`);
  courses.push(
    chart($("values"), () => {
      const parts = chosen(),
        thinned = (values, size) => values.map((_, k) => Math.round((k * (size - 1)) / Math.max(1, values.length - 1)));
      const lines = byLayer(parts.length, (k) => {
        const y = looks[state.look].spectra[parts[k].i];
        return { name: nameOf(parts[k]), x: thinned(y, parts[k].size), y };
      });
      const first = looks[0].spectra[parts[0].i];
      return {
        title: `Singular values at step ${say(looks[state.look].step, 0)}`,
        xLabel: "index",
        zero: true,
        lines: [
          ...lines,
          { name: "initialisation", colour: "var(--c1)", dash: "1 4", x: thinned(first, parts[0].size), y: first },
        ],
      };
    }),
  );
  if (later.length > 1)
    for (const [id, title] of [
      ["norms", "Spectral norm"],
      ["ranks", "Stable rank"],
    ])
      courses.push(
        chart($(id), () => {
          const parts = chosen();
          return {
            title: `${title} in the course of training`,
            xLabel: "step",
            logX: true,
            zero: true,
            lines: byLayer(parts.length, (k) => ({
              name: nameOf(parts[k]),
              x: steps,
              y: later.map((look) => look[id][parts[k].i]),
            })),
          };
        }),
      );
  $("kind").addEventListener("change", drawCourses);
}
function foot() {
  $("lineage").append(pairs(D.lineage));
  for (const [name, settings] of Object.entries({ model: card.model, train: card.train, plot: D.plot })) {
    const shown = Object.entries(settings).map(([key, value]) => [key, value === null ? "none" : String(value)]);
    $("settings").append(el("div", {}, el("h3", {}, name), el("table", { class: "text" }, pairs(shown))));
  }
  $("worth-about").textContent = "Scores at the chosen step.";
  if (D.worth)
    $("worth-about").textContent +=
      ` The last two columns: how much the loss of the final model on ${say(D.worth.tokens, 0)} validation tokens, ${say(D.worth.loss, 4)}, ` +
      "changes when the output of the head is set to zero, and the standard error of that over windows. " +
      "A picture suggests what a head does; only this says what it is worth.";
}

head();
stories();
quality();
buildHeads();
buildMap();
buildTokens($("looks"), lookTokens, (i) => move(i, i));
buildTokens($("losses"), lossTokens, (i) => {
  state.token = i;
  showLosses();
  drawCourses();
});
foot();
buildCourses();
slider($("step"), looks.length, (i) => {
  state.look = i;
  $("step-at").textContent = looks[i].step ? `step ${say(looks[i].step, 0)}` : "step 0: the initialisation";
  showAttention();
  showLosses();
  drawCourses();
});
