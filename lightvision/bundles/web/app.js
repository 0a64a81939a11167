// The page: pictures come in, one after the other is asked about, each has a card.

import { Camera, present } from "./camera.js";
import { loaded } from "./classifier.js";
import { decoded, fitted, show, showSquare, Unreadable } from "./picture.js";

const TOP = 5;
const LONGEST = 320;
const at = (id) => document.getElementById(id);
const whole = (number) => number.toLocaleString("en");
const percent = (share) => `${(share * 100).toFixed(1)} %`;

let asked = Promise.resolve(); // pictures are asked about in turn

async function start() {
  let classifier;
  try {
    classifier = await loaded();
  } catch (error) {
    trouble(`The network cannot be loaded: ${error.message}.`);
    at("status").textContent = "";
    return;
  }
  describe(classifier.facts);
  listen((files) => {
    trouble("");
    if (files.length === 0) trouble("There was no picture in that.");
    for (const file of files) asked = asked.then(() => ask(classifier, file));
  });
  at("files").disabled = at("camera").disabled = false;
  at("status").textContent = "Ready.";
}

function trouble(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = !text;
}

function describe({ dataset, classes, model, accuracy, image_size: size, name, fit }) {
  const fits = { crop: "the middle of a picture", pad: "all of a picture, on black", stretch: "all of a picture, stretched" };
  document.title = at("title").textContent = `${dataset}: image classifier`;
  const [split, share] = Object.entries(accuracy).findLast(([, measured]) => measured) ?? [];
  const facts = {
    Network: name,
    Classes: `${classes.length}: ${classes.join(", ")}`,
    Size: `${whole(model.bytes)} bytes`,
    Accuracy: share
      ? `${percent(share.accuracy)} [${percent(share.low)}, ${percent(share.high)}] of ${whole(share.pictures)} pictures of ${split}`
      : "not measured",
    Sees: `${fits[fit]}, ${size} × ${size} pixels`,
    Runs: "in ONNX Runtime, as WebAssembly with SIMD, on one thread of this device",
  };
  for (const [term, text] of Object.entries(facts)) at("facts").append(made("dt", term), made("dd", text));
}

function made(tag, text = "", name = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className: name });
}

function listen(take) {
  const camera = new Camera(at("viewfinder"), at("video"), (file) => take([file]), trouble);
  at("camera").hidden = !present;
  at("camera").addEventListener("click", () => camera.open());
  at("shoot").addEventListener("click", () => camera.shoot());
  at("close").addEventListener("click", () => at("viewfinder").close());
  at("files").addEventListener("change", ({ target }) => {
    if (target.files.length) take([...target.files]);
    target.value = ""; // so that the same file can be chosen again
  });
  at("clear").addEventListener("click", () => {
    at("answers").replaceChildren();
    at("clear").hidden = true;
    at("files").focus();
  });
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || at("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    take([...event.dataTransfer.files]);
  });
}

async function ask(classifier, file) {
  at("status").textContent = `Looking at ${file.name} …`;
  const card = at("answer").content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(name);
  part("h3").textContent = file.name;
  try {
    const { image_size: size, fit, classes } = classifier.facts;
    const bitmap = await decoded(file);
    const square = await fitted(bitmap, size, fit);
    const ranked = rank(classes, await classifier.probabilities(square));
    show(part(".seen"), bitmap, LONGEST);
    showSquare(part(".asked"), square, size);
    part(".seen").setAttribute("aria-label", `${file.name}, ${bitmap.width} × ${bitmap.height} pixels`);
    part(".asked").setAttribute("aria-label", "what the network sees of it");
    part(".asked").title = "what the network sees of it";
    bitmap.close();
    part(".verdict").textContent = ranked[0].name;
    part(".classes").append(...ranked.slice(0, TOP).map(line));
    const { median, rounds } = await classifier.milliseconds(square);
    part(".time").textContent = `${median.toPrecision(2)} ms, the median of ${rounds} rounds, one thread, WebAssembly SIMD`;
    at("status").textContent = `${file.name}: ${ranked[0].name}, ${percent(ranked[0].probability)}.`;
  } catch (error) {
    const reason = error instanceof Unreadable ? error.message : `the network stopped: ${error.message}`;
    card.classList.add("failed");
    part(".pictures").remove();
    part(".verdict").textContent = `No answer: ${reason}.`;
    at("status").textContent = `${file.name}: ${reason}.`;
  }
  at("answers").append(card);
  at("clear").hidden = false;
}

function rank(classes, probabilities) {
  return classes
    .map((name, index) => ({ name, probability: probabilities[index] }))
    .sort((one, other) => other.probability - one.probability);
}

function line({ name, probability }) {
  const item = document.createElement("li");
  const number = Object.assign(made("data", percent(probability)), { value: probability });
  const bar = made("div", "", "bar");
  bar.append(document.createElement("span"));
  bar.firstChild.style.width = percent(probability).replace(" ", "");
  bar.setAttribute("aria-hidden", "true");
  item.append(made("span", name), number, bar);
  return item;
}

start();
