// Charts over the training steps, and the singular values at the chosen step.

// Step 0 has no place on a logarithmic axis
const trained = snapshots.filter((snapshot) => snapshot.step > 0);
const trainedSteps = trained.map((snapshot) => snapshot.step);
const histories = []; // functions that redraw

const drawHistories = () => histories.forEach((draw) => draw());

function buildHistories() {
  buildMatrixMenu();
  addHistory("values", singularValues);
  if (trained.length < 2) return;
  addHistory("head-history", headScores);
  addHistory("entropy-history", headEntropy);
  if (T > 1) addHistory("loss-history", tokenLoss);
  addHistory("norms", () => matrixHistory("norms", "Spectral norm"));
  addHistory("ranks", () => matrixHistory("ranks", "Stable rank"));
}

function addHistory(id, describe) {
  histories.push(chart($(id), describe));
}

// A chart over the training steps; `lines` need names and values
function overSteps(title, lines) {
  const withSteps = lines.map((line) => ({ ...line, x: trainedSteps }));
  return {
    title: `${title} during training`,
    xLabel: "step",
    logX: true,
    zero: true,
    lines: withSteps,
  };
}

function scoreHistory(name) {
  return trained.map((snapshot) => snapshot.scores[name][chosen.layer][chosen.head]);
}

function headScores() {
  const y = scoreHistory;
  return overSteps(`Scores of layer ${chosen.layer}, head ${chosen.head}`, [
    { name: "previous token", color: "var(--c0)", y: y("previous_token") },
    { name: "first token", color: "var(--c1)", dash: "6 3", y: y("first_token") },
    { name: "induction", color: "var(--c2)", dash: "2 2", y: y("induction") },
  ]);
}

function headEntropy() {
  const line = { name: "entropy", color: "var(--c3)", y: scoreHistory("entropy") };
  return overSteps(`Entropy of layer ${chosen.layer}, head ${chosen.head} [bits]`, [line]);
}

function tokenLoss() {
  const token = Math.max(1, chosen.lossOf);
  const losses = trained.map((snapshot) => snapshot.losses[token - 1]);
  const line = { name: "loss", color: "var(--c0)", y: losses };
  return { ...overSteps(`Loss of ${quoted(labels[token])} [nats]`, [line]), height: 180 };
}

function buildMatrixMenu() {
  const kinds = [...new Set(report.weight_groups.map((group) => group.kind))];
  $("kind").append(...kinds.map((kind) => el("option", { value: kind }, kind)));
  $("kind").value = report.weight_groups.find((group) => group.layer === 0).kind;
  $("kind").addEventListener("change", drawHistories);
}

// The matrices of the chosen kind; `index` is their place in the data of a snapshot
function chosenMatrices() {
  return report.weight_groups
    .map((group, index) => ({ ...group, index }))
    .filter((group) => group.kind === $("kind").value);
}

const matrixName = ({ layer, kind }) => (layer === null ? kind : `layer ${layer}`);

function matrixHistory(measure, title) {
  const lines = chosenMatrices().map((matrix) => ({
    name: matrixName(matrix),
    y: trained.map((snapshot) => snapshot[measure][matrix.index]),
  }));
  return overSteps(title, layerLines(lines));
}

function singularValues() {
  const { step, spectra } = snapshots[chosen.snapshot];
  const matrices = chosenMatrices();
  const lines = matrices.map((matrix) => spectrumLine(matrixName(matrix), matrix, spectra));
  const chartLines = layerLines(lines);
  if (report.curves) {
    const initial = spectrumLine("initialization", matrices[0], snapshots[0].spectra);
    chartLines.push({ ...initial, color: "var(--c1)", dash: "1 4" });
  }
  const at = report.curves ? ` at step ${whole(step)}` : "";
  return { title: `Singular values${at}`, xLabel: "index", zero: true, lines: chartLines };
}

// Only some of the `size` singular values are in the data, evenly spread
function spectrumLine(name, { index, size }, spectra) {
  const y = spectra[index];
  const stride = (size - 1) / Math.max(1, y.length - 1);
  return { name, x: y.map((_, i) => Math.round(i * stride)), y };
}
