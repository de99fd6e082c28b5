// Build the page, then show a first text.

// The views on the right; each shows the text as it is now, and may do so in steps
const VIEWS = {
  attention: { title: "Where it reads from", steps: showAttention },
  switches: { title: "Switches", steps: showSwitches },
  inside: { title: "Inside", steps: oneStep(showInside) },
  training: { title: "Through training", steps: showTraining },
  facts: { title: "This file", steps: oneStep(() => {}) },
};

if (!facts.step) {
  delete VIEWS.training; // nothing is known of the training of an imported model
  $("training").remove();
}

let textVersion = 0; // counts the texts, so that work for an earlier one stops
let viewVersion = 0;

function oneStep(show) {
  return function* () {
    show();
  };
}

// Let the model read another text and show what it finds; done when all of it is shown.
// byTyping: the text box has it already.
async function changeText(tokenIds, { position = tokenIds.length - 1, byTyping = false } = {}) {
  const version = ++textVersion;
  generating = null;
  if (byTyping) textBefore = null;
  setGenerating(false);
  $("generated").textContent = "";
  $("page").setAttribute("aria-busy", "true");
  state.tokenIds = tokenIds;
  state.position = position;
  if (!byTyping) {
    $("prompt").value = tokenizer.decode(tokenIds);
    $("length").textContent = `${whole(tokenIds.length)} of ${whole(CONTEXT)} tokens`;
  }
  const isNew = () => version === textVersion;
  if (await workThrough(reading.read(tokenIds), isNew)) await showAll();
}

// Let work for the text as it is now come to its end
function stopShowing() {
  textVersion++;
  viewVersion++;
}

function choosePosition(position) {
  if (generating) return;
  state.position = position;
  return showAll();
}

function showAll() {
  showWarning();
  showTokens();
  showNext();
  writeAddressSoon();
  return VIEWS[state.view].show();
}

let addressTimer = 0;

// Browsers refuse a change at every keystroke
function writeAddressSoon() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(writeAddress, 300);
}

async function showView(name) {
  const version = ++viewVersion;
  const text = textVersion;
  $("page").setAttribute("aria-busy", "true");
  const isWanted = () => version === viewVersion && text === textVersion;
  const finished = await workThrough(VIEWS[name].steps(), isWanted);
  if (finished && isWanted()) $("page").setAttribute("aria-busy", "false");
}

// --- tabs ---

function buildTabs() {
  for (const [name, view] of Object.entries(VIEWS)) {
    view.show = () => showView(name);
    const attributes = { role: "tab", id: `tab-${name}`, "aria-controls": name };
    view.tab = el("button", { type: "button", ...attributes }, view.title);
    view.tab.addEventListener("click", () => openView(name));
    $(name).setAttribute("aria-labelledby", view.tab.id);
    $("tabs").append(view.tab);
  }
  $("tabs").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const names = Object.keys(VIEWS);
    const next = names[(names.indexOf(state.view) + by + names.length) % names.length];
    openView(next);
    VIEWS[next].tab.focus();
  });
  for (const link of document.querySelectorAll("[data-view]"))
    link.addEventListener("click", (event) => {
      event.preventDefault();
      openView(link.dataset.view);
    });
}

function openView(name) {
  state.view = name;
  markTabs();
  VIEWS[name].show();
  writeAddressSoon();
}

function markTabs() {
  for (const [name, view] of Object.entries(VIEWS)) {
    const isOpen = name === state.view;
    view.tab.setAttribute("aria-selected", isOpen);
    view.tab.tabIndex = isOpen ? 0 : -1;
    $(name).hidden = !isOpen;
  }
}

// --- the start ---

function followAddress() {
  const text = readAddress();
  markTabs();
  showControls();
  reading.forgetFrom(0);
  $("prompt").value = text;
  return typed(text);
}

function buildLargeType() {
  $("large").addEventListener("click", () => {
    const isLarge = document.documentElement.classList.toggle("large");
    $("large").setAttribute("aria-pressed", isLarge);
  });
}

async function start() {
  buildTabs();
  buildTyping();
  buildNext();
  buildAttention();
  buildSwitches();
  buildInside();
  if (VIEWS.training) buildTraining();
  buildLargeType();
  document.querySelectorAll("section").forEach(addSaveButton);
  showAbout();
  window.addEventListener("hashchange", followAddress);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showAll);
  await followAddress();
  performance.mark("ready");
  await workThrough(checkProbe(), () => true);
}

start();
