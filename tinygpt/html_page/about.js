// Honest: what the file is, and whether its engine computes what tinygpt computed.

function showAbout() {
  const { config, parameters, step, max_steps, which, dtype, id } = facts;
  const unfinished = step < max_steps && which === "last" ? " (the run was not finished)" : "";
  const training = step
    ? `Trained for ${whole(step)} steps${unfinished}.`
    : "It was imported, and its training is not known.";
  $("about").textContent =
    `A GPT with ${whole(parameters)} parameters: ${L} layers of ${H} heads, width ` +
    `${config.d_model}, context ${CONTEXT}, ${whole(tokenizer.vocabSize)} tokens. ${training} ` +
    "It runs in this file, in your browser, without a network.";
  const chosen = which === "best" ? "lowest validation loss" : "last";
  const rows = {
    model: id,
    weights: step ? `${chosen}, step ${step} of ${max_steps}` : "as imported",
    format: dtype,
    snapshots: facts.snapshots.length
      ? `step ${facts.snapshots.join(", ")} in ${facts.snapshot_dtype}`
      : "none",
    ...config,
    vocab_size: tokenizer.vocabSize,
  };
  const entries = Object.entries(rows).map(([name, value]) => [name, String(value)]);
  $("facts-table").append(nameValueRows(entries));
}

// The largest difference between the page's logits and those of tinygpt, on the model's probe
function* checkProbe() {
  const { token_ids, logits } = facts.probe;
  const expected = new Float32Array(fromBase64(logits).buffer); // (P, V)
  const positions = expected.length / model.vocab_size;
  const probe = new Reading(model);
  yield* probe.read(token_ids);
  let difference = 0;
  for (let p = 0; p < positions; p++) {
    const found = probe.logits(token_ids.length - positions + p);
    for (let id = 0; id < found.length; id++) {
      const apart = Math.abs(found[id] - expected[p * found.length + id]);
      difference = apart <= difference ? difference : apart; // NaN is kept
    }
    yield;
  }
  showCheck(difference, positions);
}

function showCheck(difference, positions) {
  const isRight = difference <= facts.bound;
  const size = `largest difference to tinygpt: ${difference.toPrecision(2)} in logits`;
  $("check").classList.toggle("wrong", !isRight);
  $("check").textContent = isRight
    ? `${facts.dtype} weights, ${size}`
    : `This page does not compute what tinygpt computed: ${size}, at most ${facts.bound} is right`;
  const reason =
    facts.dtype === "f32"
      ? "The weights are those of tinygpt, so only the order of additions differs."
      : `Most of it comes from weights in ${facts.dtype}; it was measured when the page was made.`;
  $("check-about").textContent =
    "When it was opened, the page computed the logits of a fixed text of " +
    `${facts.probe.token_ids.length} random tokens at its last ${positions} positions and ` +
    `compared them with those of tinygpt: ${size}, allowed ${facts.bound}. ${reason}`;
}
