// What was trained, how well it predicts, its training curves, and what it generates.

const report = JSON.parse($("data").textContent);

const MEASURES = {
  distinct_1: "distinct-1",
  distinct_2: "distinct-2",
  distinct_3: "distinct-3",
  ended: "texts with a proper ending",
  loops: "texts with a loop",
  unseen_words: "words never seen in training",
  longest_match: "longest copy, mean [tokens]",
  memorized: "texts with a copy of 50 tokens or more",
};
const MOST_WORDS = 40; // of the unseen words that are listed

function showRun() {
  showAbout();
  showScores();
  showTrainingCurves();
  showSamples();
  showQuality();
  showSettings();
}

function showAbout() {
  const { model_config: config, dataset, curves, parameters } = report;
  const shape =
    `${config.model.n_layers} layers of ${config.model.n_heads} heads, ` +
    `width ${config.model.d_model}, context ${config.model.context_length}, ` +
    `vocabulary ${whole(config.vocab_size)}`;
  const note = dataset?.label ? ` Note: ${dataset.label}.` : "";
  let training = "imported; its training is not known";
  if (curves)
    training =
      `trained for ${whole(config.step)} steps of ${whole(curves.tokens_per_step)} tokens on ` +
      `${whole(dataset.train.documents)} documents ` +
      `(${whole(dataset.train.tokens)} tokens, ${whole(dataset.train.bytes)} bytes)`;
  $("about").textContent =
    `A GPT with ${whole(parameters)} parameters (${shape}), ${training}.${note}`;
}

function showJudged() {
  const { evaluation } = report;
  const text = evaluation.judged === "text" ? "given text" : evaluation.judged;
  const size = `${whole(evaluation.documents)} documents, ${whole(evaluation.tokens)} tokens`;
  const error =
    evaluation.standard_error === null
      ? ""
      : ` The standard error of this model's loss over documents is ` +
        `${fixed(evaluation.standard_error, 4)}.`;
  const chosen =
    evaluation.other_weights === null
      ? ""
      : " The best weights are those with the lowest loss on the validation split.";
  $("judged").textContent = `Measured on the ${text}: ${size}.${error}${chosen}`;
}

// This model, the other weights of its run and the baselines, the best first
function rankedScores() {
  const { evaluation } = report;
  const weights = ({ weights, step }) => `${weights} weights (step ${whole(step)})`;
  const name = evaluation.step ? `this model, ${weights(evaluation)}` : "this model, imported";
  const own = { name, own: true, ...evaluation };
  const other = [evaluation.other_weights]
    .filter((score) => score !== null)
    .map((score) => ({ name: `its ${weights(score)}`, own: false, ...score }));
  const baselines = Object.entries(evaluation.baselines).map(([name, score]) => ({
    name,
    own: false,
    ...score,
  }));
  return [own, ...other, ...baselines].sort((a, b) => a.loss - b.loss);
}

function showScores() {
  if (!report.evaluation) {
    $("prediction").remove();
    return;
  }
  showJudged();
  const scores = rankedScores();
  const worst = Math.max(...scores.map((score) => score.loss));
  const bar = (loss) => {
    const filled = el("i", { style: `width:${(100 * loss) / worst}%` });
    return el("td", { class: "bar", "aria-hidden": "true" }, filled);
  };
  const rows = scores.map(({ name, own, perplexity, loss, bits_per_byte }) => ({
    own,
    cells: [name, fixed(perplexity), fixed(loss, 3), fixed(bits_per_byte, 3), bar(loss)],
  }));
  const titles = ["model", "perplexity", "loss [nats]", "bits per byte", ""];
  $("scores").append(...table(titles, rows));
}

function showTrainingCurves() {
  const curves = report.curves;
  if (!curves) {
    for (const element of [$("curves"), ...document.querySelectorAll(".of-training")])
      element.remove();
    return;
  }
  chart($("loss"), () => lossChart(curves));
  chart($("rate"), () => ({
    title: "Learning rate",
    xLabel: "step",
    height: 160,
    zero: true,
    lines: [
      { name: "learning rate", x: curves.steps, y: curves.learning_rate, color: "var(--c2)" },
    ],
  }));
  chart($("norm"), () => ({
    title: "Gradient norm before clipping",
    xLabel: "step",
    height: 160,
    logY: curves.grad_norm.every((norm) => norm > 0),
    lines: [{ name: "gradient norm", x: curves.steps, y: curves.grad_norm, color: "var(--c3)" }],
  }));
}

function lossChart(curves) {
  const baselines = report.comparable ? rankedScores().filter((score) => !score.own) : [];
  const spec = {
    title: "Loss [nats/token]",
    xLabel: "step",
    height: 360,
    lines: [
      { name: "train", x: curves.steps, y: curves.loss, color: "var(--c0)", opacity: 0.35 },
      { name: "train, smoothed", x: curves.steps, y: curves.smooth, color: "var(--c0)" },
    ],
    levels: baselines.map(({ name, loss }) => ({ name, y: loss })),
    read: (loss) => `${fixed(loss, 3)} (perplexity ${fixed(Math.exp(loss), 1)})`,
  };
  if (!curves.eval_steps.length) return spec;
  const validation = { x: curves.eval_steps, y: curves.eval_loss, color: "var(--c1)" };
  const best = { x: curves.eval_steps[curves.best], y: curves.eval_loss[curves.best] };
  const perplexity = fixed(Math.exp(best.y));
  spec.title += `; ★ best validation perplexity ${perplexity} at step ${whole(best.x)}`;
  spec.lines.push({ name: "validation", dash: "6 3", ...validation });
  spec.mark = best;
  return spec;
}

function showSamples() {
  const { samples, eval_steps, eval_loss } = report.curves ?? { samples: [] };
  if (!samples.some((sample) => sample)) {
    $("samples").remove();
    return;
  }
  startSlider($("evaluation"), samples.length, (i) => {
    const perplexity = fixed(Math.exp(eval_loss[i]));
    $("evaluation-at").textContent =
      `step ${whole(eval_steps[i])}, validation perplexity ${perplexity}`;
    $("sample").textContent = samples[i] || "(empty)";
  });
}

function showQuality() {
  const quality = report.evaluation?.generation_metrics;
  if (!quality) {
    $("quality").remove();
    return;
  }
  $("quality-about").textContent =
    `The model generated ${quality.count} samples without a prompt (temperature ` +
    `${quality.temperature}, at most ${quality.max_tokens} tokens, seed ${quality.seed}). They ` +
    "are compared with as many held-out documents, cut to the same length. " +
    "Parentheses contain 95 % intervals, estimated from random halves of the texts; an interval " +
    `of width 0 only means that these ${quality.count} texts do not differ in that measure.`;
  const rows = Object.entries(MEASURES).map(([name, title]) => ({
    cells: [
      title,
      estimateCell(name, quality.generated[name]),
      estimateCell(name, quality.validation[name]),
    ],
  }));
  const titles = ["measure", "generated samples", "held-out documents"];
  $("quality-table").append(...table(titles, rows));
  $("unseen-words").textContent = unseenWords(quality.unseen);
  showLongestCopy(quality.longest);
}

function estimateCell(name, { value, low, high }) {
  const isShare = name !== "longest_match";
  const write = (x) => fixed(isShare ? 100 * x : x, 1);
  const interval = el("span", { class: "unbroken" }, `(${write(low)} – ${write(high)})`);
  return el("td", {}, `${write(value)}${isShare ? " %" : ""} `, interval);
}

function unseenWords(words) {
  if (!words.length) return "";
  const more = words.length > MOST_WORDS ? `, and ${words.length - MOST_WORDS} more` : "";
  return `Generated but never seen in training: ${words.slice(0, MOST_WORDS).join(", ")}${more}.`;
}

function showLongestCopy({ tokens, text, sample, generated, origin, training }) {
  $("copy-about").textContent =
    `Sample ${sample} shares ${whole(tokens)} consecutive tokens with training document ` +
    `${whole(origin)}; both are counted from 0. The sample comes first, then the document:`;
  $("copy").append(...withMark(generated, text));
  $("origin").append(...withMark(training, text));
}

function withMark(text, marked) {
  const at = text.indexOf(marked);
  if (at < 0) return [text]; // the copy begins or ends within a character
  return [text.slice(0, at), el("mark", {}, marked), text.slice(at + marked.length)];
}

function showSettings() {
  const { model_config: config, plot, lineage } = report;
  $("lineage").append(nameValueRows(lineage));
  for (const [name, values] of Object.entries({ model: config.model, train: config.train ?? {}, plot })) {
    const rows = nameValueRows(
      Object.entries(values).map(([key, value]) => [key, value === null ? "none" : String(value)]),
    );
    $("settings").append(el("div", {}, el("h3", {}, name), el("table", { class: "text" }, rows)));
  }
}
