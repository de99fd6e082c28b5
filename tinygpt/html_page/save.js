// A view as a picture: an SVG file that holds its elements and the style of the page.

const NOT_IN_XML = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu;

function addSaveButton(section) {
  const button = el("button", { type: "button", class: "save" }, "Save picture");
  button.addEventListener("click", () => saveView(section));
  section.querySelector("h2").append(button);
}

async function saveView(section) {
  const picture = pictureOf(section);
  const name = `tinygpt-${facts.id}-${section.id}`;
  try {
    download(await toPng(picture), `${name}.png`);
  } catch {
    download(picture.url, `${name}.svg`); // some browsers do not draw HTML on a canvas
  }
}

// The section as an SVG image
function pictureOf(section) {
  const { width, height } = section.getBoundingClientRect();
  const padding = 16;
  const size = { width: Math.ceil(width) + 2 * padding, height: Math.ceil(height) + 2 * padding };
  const style = el("style", {}, document.querySelector("style").textContent);
  const body = el("div", { class: "picture" }, style, stillCopy(section));
  body.style.cssText = `padding:${padding}px;width:${size.width}px;height:${size.height}px`;
  for (const name of ["--bg", "--fg", "--soft", "--line", "--panel", "--heat", "--mark"])
    body.style.setProperty(name, cssValue(name));
  for (const name of ["--c0", "--c1", "--c2", "--c3"]) body.style.setProperty(name, cssValue(name));
  const picture = svg("svg", size, svg("foreignObject", size, body));
  const text = new XMLSerializer().serializeToString(picture).replace(NOT_IN_XML, "\ufffd");
  return { ...size, url: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}` };
}

// A copy that shows what the section shows: canvases as images, and what was typed
function stillCopy(section) {
  const copy = section.cloneNode(true);
  const canvases = [...copy.querySelectorAll("canvas")];
  section.querySelectorAll("canvas").forEach((canvas, i) => {
    const image = el("img", { src: canvas.toDataURL(), style: canvas.style.cssText });
    canvases[i].replaceWith(image);
  });
  const inputs = [...copy.querySelectorAll("input, textarea, select")];
  section.querySelectorAll("input, textarea, select").forEach((input, i) => {
    if (input.type === "checkbox") inputs[i].toggleAttribute("checked", input.checked);
    else if (input.tagName === "TEXTAREA") inputs[i].textContent = input.value;
    else if (input.tagName === "SELECT")
      inputs[i].replaceChildren(el("option", {}, input.selectedOptions[0]?.textContent ?? ""));
    else inputs[i].setAttribute("value", input.value);
  });
  for (const button of copy.querySelectorAll(".save")) button.remove();
  return copy;
}

async function toPng({ width, height, url }) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = el("canvas", { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
  return canvas.toDataURL("image/png");
}

function download(url, name) {
  el("a", { href: url, download: name }).click();
}
