// Inside: the logit lens, direct logit attribution, and the nearest tokens.

const MOST_GUESSES = 5; // tokens in a row of the lens
const MOST_CHOICES = 20; // tokens to choose a vote from
const MOST_VOTES = 40; // bars
const MOST_NEIGHBORS = 10;

const POST_NORM =
  "is not there for this model: it normalizes after adding (model.norm = post), so the " +
  "residual stream is rescaled after every part, no single final norm stands between the stream " +
  "and the logits, and what a part wrote cannot be followed to the end.";

let votes = { for: null, against: null }; // token ids

function buildInside() {
  for (const [id, side] of [["vote-for", "for"], ["vote-against", "against"]])
    $(id).addEventListener("change", () => {
      votes[side] = Number($(id).value);
      showVotes();
    });
}

function showInside() {
  const after = quoted(labelOf(state.tokenIds[state.position]));
  $("inside-about").textContent = `What the model computes at the chosen token, ${after}.`;
  showNeighbors();
  if (!model.norm) {
    $("lens-help").textContent = `The logit lens ${POST_NORM}`;
    $("votes-help").textContent = `Direct logit attribution ${POST_NORM}`;
    for (const id of ["lens", "votes", "votes-choice", "votes-sum"]) $(id).hidden = true;
    return;
  }
  showLens();
  chooseVotes();
  showVotes();
}

// --- logit lens (nostalgebraist 2020) ---

function showLens() {
  const echo = facts.config.tie_embeddings
    ? "This model predicts with the matrix with which it reads, so the first rows often only " +
      "echo the token itself."
    : "This model predicts with another matrix than it reads with, so the first rows need not " +
      "mean anything.";
  $("lens-help").textContent =
    "What the model would predict if it stopped after a layer: the final norm and the lm_head " +
    "applied to the residual stream there (nostalgebraist 2020). It shows where the prediction " +
    `takes shape, not what the layers between use the stream for. ${echo}`;
  const trace = reading.trace(state.position);
  const start = trace.positions ? add(trace.embedding, trace.positions) : trace.embedding;
  const streams = [["embedding", start]];
  for (const layer of layers()) streams.push([`layer ${layer}`, trace[`${layer}.stream`]]);
  const rows = streams.map(([name, stream]) => ({ cells: [name, ...guesses(stream)] }));
  const titles = ["after", ...Array.from({ length: MOST_GUESSES }, (_, i) => `${i + 1}.`)];
  $("lens").replaceChildren(...table(titles, rows));
}

function guesses(stream) {
  const probabilities = softmax(model.lm_head.forward(model.norm.forward(stream, 1), 1));
  return [...ranked(probabilities, MOST_GUESSES)].map((id) =>
    el("td", {}, el("b", {}, labelOf(id)), ` ${percent(probabilities[id])}`),
  );
}

// --- direct logit attribution (Elhage et al. 2021) ---

// Offer the likeliest tokens and the one that follows in the text
function chooseVotes() {
  const likely = [...ranked(reading.logits(state.position), MOST_CHOICES)];
  const actual = state.tokenIds[state.position + 1];
  const offered = actual === undefined || likely.includes(actual) ? likely : [...likely, actual];
  votes.for = offered[0];
  votes.against = offered[1] ?? offered[0];
  for (const [id, chosen] of [["vote-for", votes.for], ["vote-against", votes.against]]) {
    const options = offered.map((token) => el("option", { value: token }, labelOf(token)));
    $(id).replaceChildren(...options);
    $(id).value = chosen;
  }
}

// What each part adds to the logit of one token minus that of another; they sum to the difference.
// The final norm is frozen: its scale is that of the whole residual stream.
function attribution(reading, position, tokenA, tokenB) {
  const { norm, lm_head } = reading.model;
  const trace = reading.trace(position);
  const C = norm.weight.length;
  const { scale } = norm.statistics(trace[`${L - 1}.stream`], 0);
  const direction = new Float32Array(C); // of the stream, that separates the two tokens
  let constant = 0;
  for (let i = 0; i < C; i++) {
    const apart = lm_head.weight[tokenA * C + i] - lm_head.weight[tokenB * C + i];
    direction[i] = norm.weight[i] * apart;
    constant += norm.bias[i] * apart;
  }
  const tilt = direction.reduce((a, b) => a + b, 0) / C; // the norm subtracts the mean
  for (let i = 0; i < C; i++) direction[i] = (direction[i] - tilt) * scale;
  return partsOf(reading.model, trace, (vector) => dot(vector, 0, direction, 0, C), constant);
}

function partsOf(model, trace, vote, constant) {
  const parts = [{ name: "embedding", value: vote(trace.embedding) }];
  if (trace.positions) parts.push({ name: "position", value: vote(trace.positions) });
  let biases = constant;
  for (const { attention, mlp } of model.blocks) {
    const layer = attention.layer;
    for (const head of heads()) {
      const written = headOutput(attention, trace[`${layer}.heads`], head);
      parts.push({ name: `layer ${layer}, head ${head}`, value: vote(written) });
    }
    const bias = vote(mlp.down.bias);
    parts.push({ name: `layer ${layer}, MLP`, value: vote(trace[`${layer}.mlp`]) - bias });
    biases += vote(attention.out.bias) + bias;
  }
  return [...parts, { name: "biases", value: biases }];
}

// What a head writes to the residual stream, (C,)
function headOutput({ out, n_heads }, mixed, head) {
  const D = out.inputs / n_heads;
  const written = new Float32Array(out.outputs);
  for (let i = 0; i < out.outputs; i++)
    written[i] = dot(out.weight, i * out.inputs + head * D, mixed, head * D, D);
  return written;
}

function showVotes() {
  $("votes-help").textContent =
    "How much each part adds to the logit of one token minus the logit of the other: what it " +
    "wrote to the residual stream, read by the final norm and the lm_head (direct logit " +
    "attribution, Elhage et al. 2021). It counts what goes straight to the output, not what a " +
    "part does by way of later ones; the norm's scale is taken as it is.";
  const parts = attribution(reading, state.position, votes.for, votes.against);
  const logits = reading.logits(state.position);
  const difference = logits[votes.for] - logits[votes.against];
  const sum = parts.reduce((total, part) => total + part.value, 0);
  const strongest = [...parts].sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const shown = strongest.slice(0, MOST_VOTES);
  const rest = strongest.slice(MOST_VOTES).reduce((total, part) => total + part.value, 0);
  if (strongest.length > MOST_VOTES)
    shown.push({ name: `${strongest.length - MOST_VOTES} others`, value: rest });
  const most = Math.max(...shown.map((part) => Math.abs(part.value))) || 1;
  $("votes").replaceChildren(...shown.map((part) => voteBar(part, most)));
  const [a, b] = [votes.for, votes.against].map((id) => quoted(labelOf(id)));
  $("votes-sum").textContent =
    `Sum of the parts ${signed(sum, 3)}; logit of ${a} minus logit of ${b} ` +
    `${signed(difference, 3)}.`;
}

function voteBar({ name, value }, most) {
  const width = `width:${(50 * Math.abs(value)) / most}%`;
  const side = value < 0 ? "right:50%" : "left:50%";
  const bar = el("i", { class: value < 0 ? "against" : "for", style: `${width};${side}` });
  const track = el("span", { class: "track two-sided", "aria-hidden": "true" }, bar);
  const number = el("span", {}, signed(value, 2));
  return el("div", { class: "vote" }, el("span", {}, name), track, number);
}

// --- nearest tokens ---

function showNeighbors() {
  const id = state.tokenIds[state.position];
  const near = nearestTokens(model, id, MOST_NEIGHBORS);
  const names = near.map((other) => labelOf(other.id));
  const cosines = near.map((other) => fixed(other.cosine));
  const rows = [{ cells: [labelOf(id), ...names] }, { cells: ["cosine", ...cosines] }];
  const titles = ["token", ...near.map((_, i) => `${i + 1}.`)];
  $("neighbors").replaceChildren(...table(titles, rows));
}

function nearestTokens(model, id, count) {
  const { token_embedding: rows, vocab_size: V } = model;
  const C = model.config.d_model;
  const cosines = new Float32Array(V);
  const length = (other) => Math.sqrt(dot(rows, other * C, rows, other * C, C)) || 1;
  for (let other = 0; other < V; other++)
    cosines[other] = dot(rows, id * C, rows, other * C, C) / (length(id) * length(other));
  cosines[id] = -Infinity;
  return [...ranked(cosines, count)].map((other) => ({ id: other, cosine: cosines[other] }));
}
