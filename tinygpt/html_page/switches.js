// Switches: parts of the model set to zero, and what that does to this text.

const MOST_COMPARED = 8; // tokens whose probabilities are compared

const intact = new Reading(model); // the text without any switch
const ablated = new Reading(model); // the text without one part at a time

let ranking = { text: null, increases: new Map() }; // loss increases of a text by part

function buildSwitches() {
  const rows = layers().map((layer) => {
    const parts = [...heads(), "mlp"].map((name) => `${layer}.${name}`);
    return el("div", { class: "parts-row" }, `layer ${layer}`, ...parts.map(partSwitch));
  });
  $("parts").style.setProperty("--parts", H + 1);
  $("parts").append(...rows);
}

function partSwitch(part) {
  const input = el("input", { type: "checkbox", role: "switch", "data-part": part });
  input.addEventListener("change", () => {
    const off = new Set(reading.off);
    if (input.checked) off.delete(part);
    else off.add(part);
    setOff(off);
  });
  const name = part.endsWith("mlp") ? "MLP" : part;
  return el("label", { title: partName(part) }, input, name);
}

function setOff(parts) {
  reading.off = new Set(parts);
  reading.forgetFrom(0);
  return changeText(state.tokenIds, { position: state.position });
}

function* showSwitches() {
  for (const input of $("parts").querySelectorAll("input"))
    input.checked = !reading.off.has(input.dataset.part);
  yield* intact.read(state.tokenIds);
  showEffect();
  yield* rankParts();
}

// The model without the parts beside the whole model
function showEffect() {
  const before = softmax(intact.logits(state.position));
  const now = softmax(reading.logits(state.position));
  $("off-about").textContent = lossSentence(reading.off.size);
  const titles = ["next token", "all parts", "with the switches", "change"];
  const shown = new Set([...ranked(before, MOST_COMPARED / 2), ...ranked(now, MOST_COMPARED)]);
  const rows = [...shown].slice(0, MOST_COMPARED).map((id) => ({
    cells: [
      labelOf(id),
      percent(before[id]),
      percent(now[id]),
      `${signed(100 * (now[id] - before[id]), 1)}`,
    ],
  }));
  $("off-effect").replaceChildren(...table(titles, rows));
}

function lossSentence(count) {
  const parts = count ? `${count} off.` : "All parts are on.";
  if (intact.loss === null) return parts;
  const loss = `${parts} The loss of the text is ${fixed(intact.loss, 3)} nats a token`;
  if (!count) return `${loss}.`;
  const change = signed(reading.loss - intact.loss, 3);
  return `${loss} with all parts, ${fixed(reading.loss, 3)} without (${change}).`;
}

// Read the text without each part in turn
function* rankParts() {
  const text = state.tokenIds;
  if (ranking.text !== text.join()) ranking = { text: text.join(), increases: new Map() };
  const parts = [...headParts(), ...mlpParts()];
  if (intact.loss === null) {
    $("ranking-progress").textContent = "The text has no token to predict yet.";
    $("ranking").replaceChildren();
    return;
  }
  for (const part of parts) {
    if (ranking.increases.has(part)) continue;
    $("ranking-progress").textContent = `measuring ${partName(part)} …`;
    ablated.off = new Set([part]);
    ablated.forgetFrom(0);
    yield* ablated.read(text);
    ranking.increases.set(part, ablated.loss - intact.loss);
  }
  showRanking();
}

function showRanking() {
  $("ranking-progress").textContent = "";
  const { ablation } = facts;
  $("ranking-about").textContent =
    "How much the loss of this text rises without each part, all others on; on this text only. " +
    (ablation
      ? "A few tokens decide that: beside it stands what “tinygpt plot” measured over " +
        `${whole(ablation.tokens)} validation tokens, with its standard error (heads only).`
      : "A few tokens decide that; “tinygpt plot” measures heads over thousands of tokens.");
  const titles = ["without", "this text [nats/token]"];
  if (ablation) titles.push("validation [nats/token]");
  const sorted = [...ranking.increases].sort((a, b) => b[1] - a[1]);
  const rows = sorted.map(([part, increase]) => {
    const cells = [partName(part), signed(increase, 3)];
    if (ablation) cells.push(validationIncrease(part));
    return { own: reading.off.has(part), cells };
  });
  $("ranking").replaceChildren(...table(titles, rows));
}

function validationIncrease(part) {
  const [layer, head] = part.split(".");
  if (head === "mlp") return "";
  const error = facts.ablation.standard_error[layer][head];
  const increase = signed(facts.ablation.loss_increase[layer][head], 4);
  return error === null ? increase : `${increase} ± ${fixed(error, 4)}`;
}
