// Type: the text, its tokens, and how likely each was.

const MOST_LOSS = 8; // nats; a token is shaded by its share of it

const chips = []; // buttons, one a token

function buildTyping() {
  $("typing-help").textContent =
    "The model reads tokens, pieces of text. Below each stands how likely the model thought it, " +
    "given those before it; the less likely, the stronger its color. The first is hidden in " +
    "every text: it says that one begins. A grey last token may still change as you type on. " +
    "Choose a token to see what the model expected after it.";
  $("prompt").addEventListener("input", () => typed($("prompt").value));
  $("all-on").addEventListener("click", () => setOff([]));
}

const idsOf = (text) => [END_OF_TEXT, ...tokenizer.encode(text)];

// Where the context is too short for a text, the model reads its end
function typed(text) {
  const ids = idsOf(text);
  const shown = changeText(ids.slice(-CONTEXT), { byTyping: true });
  const unread = ids.length - state.tokenIds.length;
  const room = `${whole(state.tokenIds.length)} of ${whole(CONTEXT)} tokens`;
  $("length").textContent = unread ? `${room}; the first ${whole(unread)} are not read` : room;
  return shown;
}

// One button a token. Only what changes is touched: while text is generated, this is called often.
function showTokens() {
  const { tokenIds, position } = state;
  while (chips.length > tokenIds.length) chips.pop().remove();
  const last = tokenIds.length - 1;
  tokenIds.forEach((id, t) => {
    if (t === chips.length) addChip(t);
    const isRead = reading.tokenIds[t] === id;
    const mayGrow = t === last && tokenizer.mayGrow(id);
    const shown = [id, isRead ? reading.losses[t] : null, t === position, mayGrow];
    if (shown.join() !== chips[t].shown) showChip(chips[t], t, ...shown);
    chips[t].shown = shown.join();
  });
  showTokenFacts();
}

function addChip(t) {
  const text = el("span");
  const chance = el("small");
  const button = el("button", { type: "button" }, text, chance);
  button.addEventListener("click", () => choosePosition(t));
  const chip = { button, text, chance, remove: () => (button.remove(), space.remove()) };
  const space = document.createTextNode("\u200b"); // lines may break between tokens
  chips.push(chip);
  $("tokens").append(button, space);
}

function showChip({ button, text, chance }, t, id, loss, isChosen, mayGrow) {
  text.textContent = labelOf(id);
  chance.textContent = t === 0 ? "start" : loss === null ? "…" : percent(Math.exp(-loss));
  button.style.setProperty("--shade", loss === null ? 0 : Math.min(1, loss / MOST_LOSS).toFixed(2));
  button.setAttribute("aria-pressed", isChosen);
  button.classList.toggle("may-grow", mayGrow);
}

function showTokenFacts() {
  const { tokenIds, position } = state;
  if (position >= reading.tokenIds.length) return; // it is being generated
  const id = tokenIds[position];
  const place = `Token ${whole(position + 1)} of ${whole(tokenIds.length)}: ${quoted(labelOf(id))}`;
  const loss = reading.losses[position];
  const chance =
    position === 0
      ? "it begins every text"
      : `probability ${percent(Math.exp(-loss))}, loss ${fixed(loss)} nats`;
  const textLoss = reading.loss;
  const mean = textLoss === null ? "" : `Loss of the text: ${fixed(textLoss)} nats a token.`;
  $("token-about").textContent = `${place} (id ${whole(id)}), ${chance}. ${mean}`;
}

function showWarning() {
  const count = reading.off.size;
  $("warning").hidden = !count;
  const parts = count === 1 ? partName([...reading.off][0]) : `${count} parts`;
  $("warning-text").textContent = `Switched off: ${parts}. All views show the model without.`;
}
