// Through training: the same text and the same seed, at an earlier step and now.

const MOST_THEN = 8; // tokens that are compared
const CONTINUATION = 60; // tokens

const packedSnapshots = [...document.querySelectorAll(".snapshot")].map(takeText);

let chosenStop = 0;
let stopModel = { stop: null, model: null }; // the weights of one stop are in memory

// The steps of the slider; the last one is the model of the page
const stops = () => [...facts.snapshots, facts.step];

function buildTraining() {
  const none = !packedSnapshots.length;
  $("training-body").hidden = none;
  $("training-help").textContent = none
    ? "This page holds no earlier weights: it was made with “--snapshots 0”, the run kept none, " +
      "or the file would have become too large."
    : "The text up to the chosen token, continued by the model as it was at a step of its " +
      "training and as it is now, with the same seed and settings. Both have weights in " +
      `${facts.snapshot_dtype}, so that what differs is training and not rounding; switches do ` +
      "not apply.";
  if (none) return;
  const slider = $("snapshot");
  Object.assign(slider, { max: stops().length - 1, value: 0 });
  slider.addEventListener("input", () => {
    chosenStop = Number(slider.value);
    VIEWS.training.show();
  });
}

function modelOfStop(stop) {
  if (stopModel.stop !== stop) {
    const isLast = stop === packedSnapshots.length;
    const values = isLast
      ? roundedToInt8(weights, facts.shapes)
      : unpackWeights(fromBase64(packedSnapshots[stop]), facts.shapes, facts.snapshot_dtype);
    stopModel = { stop, model: new GPT(facts.config, values) };
  }
  return stopModel.model;
}

let now = { key: null, result: null }; // what the last stop gave

function* showTraining() {
  if (!packedSnapshots.length) return;
  const last = stops().length - 1;
  const step = stops()[chosenStop];
  $("snapshot-at").textContent = `step ${whole(step)}${chosenStop === last ? ": now" : ""}`;
  const text = state.tokenIds.slice(0, state.position + 1);
  const nowKey = JSON.stringify([text, state.settings]);
  if (now.key !== nowKey) now = { key: nowKey, result: yield* continueFrom(last, text) };
  const then = chosenStop === last ? now.result : yield* continueFrom(chosenStop, text);
  $("then").replaceChildren(...stopContents(`Then: step ${whole(step)}`, then, text));
  $("now").replaceChildren(...stopContents(`Now: step ${whole(facts.step)}`, now.result, text));
}

// The prediction after the text, its loss, and a continuation
function* continueFrom(stop, text) {
  const reading = new Reading(modelOfStop(stop));
  yield* reading.read(text);
  const probabilities = softmax(reading.logits(text.length - 1));
  const loss = reading.loss;
  const continuation = [];
  for (const id of generateTokens(reading, text, state.settings, CONTINUATION)) {
    if (id !== undefined) continuation.push(id);
    yield;
  }
  return { probabilities, loss, continuation };
}

function stopContents(title, { probabilities, loss, continuation }, text) {
  const shown = [...ranked(probabilities, MOST_THEN)];
  const most = probabilities[shown[0]];
  const bars = shown.map((id) => {
    const probability = probabilities[id];
    return tokenBar(id, probability, probability, most, () => append(id));
  });
  const lossText = loss === null ? "" : `Loss of the text: ${fixed(loss)} nats a token.`;
  const read = el("span", { class: "soft" }, tokenizer.decode(text));
  const sample = el("p", { class: "sample" }, read);
  sample.append(tokenizer.decode(continuation) || "(nothing: the text ends here)");
  return [el("h3", {}, title), el("p", {}, lossText), ...bars, sample];
}
