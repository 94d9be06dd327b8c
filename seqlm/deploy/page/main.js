// The page: it reads its own data, starts the worker, and puts the parts in their places.

import { default as choice } from "../../static/choice.js";
import { default as notice } from "../../static/notice.js";
import { make } from "../../static/painting.js";
import { AttentionPanel, readingTokens } from "./attention_panel.js";
import { Client } from "./client.js";
import { Codebook } from "./codebook.js";
import { SamplingControls } from "./controls.js";
import { CompletePanel, DrawPanel, PaintPanel, SharedPicture, reporting } from "./panels.js";
import { mount } from "./state.js";
import { TextPanel } from "./text_panel.js";
import { Vocabulary } from "./tokens.js";
import { HOW, LANGUAGES } from "./words.js";

const textOf = (id) => document.getElementById(id).textContent;
const main = document.querySelector("main");
const told = []; // every sentence on the page: its node, number, English, Chinese

/** The sentences about a subject, to stand beside what they explain. */
function how(name) {
  const sentences = HOW[name].map(([number, ...languages]) => {
    const node = make("p");
    told.push({ node, number, languages });
    return node;
  });
  return make("div", { class: "how" }, ...sentences);
}

/** A part of the page with a heading. */
function section(title) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  const element = make("section", { "aria-labelledby": id }, make("h2", { id }, title));
  main.append(element);
  return element;
}

function explain(language) {
  for (const { node, number, languages } of told) {
    node.textContent = `${number}. ${languages[language === "en" ? 0 : 1]}`;
    node.lang = language;
  }
}

/** Two columns: what one sets, and what comes of it. */
function columns(element) {
  const [left, right] = [make("div", { class: "left" }), make("div", { class: "right" })];
  element.append(make("div", { class: "columns" }, left, right));
  return [left, right];
}

function showPictures(page, data) {
  const shared = new SharedPicture();
  const [left, right] = columns(section("Draw a digit"));
  const controls = new SamplingControls(left, data);
  left.append(how("sampling"));
  const draw = new DrawPanel(page, right, controls, shared);
  const paint = new PaintPanel(page, ...columns(section("Paint a digit")), shared);
  new CompletePanel(page, section("Complete half a picture"), controls, shared);
  const attention = new AttentionPanel(page, section("Attention"));
  shared.on("change:codes", () => {
    const codes = shared.get("codes");
    attention.read(readingTokens(codes), shared.get("description"), codes);
  });
  return Promise.all([draw.draw(), paint.read()]);
}

function showText(page, data) {
  const [left, right] = columns(section("Write"));
  const controls = new SamplingControls(left, data);
  left.append(how("sampling"));
  const attention = new AttentionPanel(page, make("div"));
  const text = new TextPanel(page, right, controls, (tokens) => attention.read(tokens, "the text"));
  section("Attention").append(attention.element);
  return text.look();
}

function showAbout(about, difference) {
  const element = section("About this file");
  const checked =
    "a test row gives torch’s answer in this browser: its logits differ by at most " +
    difference.toExponential(0);
  const lines = Object.entries({ ...about, checked });
  const list = lines.flatMap(([name, words]) => [make("dt", {}, name), make("dd", {}, words)]);
  element.append(how("about"), make("dl", {}, ...list));
}

async function start() {
  // A browser that saved the page may have saved these, too.
  for (const old of main.querySelectorAll("section, .top")) old.remove();
  const top = make("div", { class: "top" });
  main.append(top);
  const status = mount(notice, top, { text: "Unpacking the weights …" });
  await reporting(status, async () => {
    const data = JSON.parse(textOf("data"));
    const vocabulary = new Vocabulary(data.tokens);
    const client = new Client(textOf("worker"));
    const opened = await client.ask("open", { data, weights: textOf("weights") });
    const nClasses = vocabulary.classIds.length;
    const page = { client, vocabulary, config: data.config, nClasses, how, book: null };
    if (data.codebook) {
      const [height, width, patch] = data.codebook;
      page.book = new Codebook({ centers: opened.centers, height, width, patch });
      const codes = Array.from({ length: page.book.nCodes }, (_, code) => code);
      page.codeOf = new Map(vocabulary.codeIds(codes).map((id, code) => [id, code]));
    }
    const language = mount(choice, top, {
      label: "explanations",
      names: Object.keys(LANGUAGES),
      index: navigator.language.startsWith("zh") ? 1 : 0,
    });
    const { n_layer, n_head, n_embd } = data.config;
    const sizes = data.tensors.map(([, shape]) => shape.reduce((product, n) => product * n, 1));
    if (page.book) sizes.pop(); // the codebook, which comes last, was not trained with the model
    const parameters = sizes.reduce((sum, n) => sum + n, 0).toLocaleString("en");
    const ready = (data.codebook ? showPictures : showText)(page, data);
    showAbout(data.about, opened.difference);
    const tell = () => explain(Object.values(LANGUAGES)[language.get("index")]);
    language.on("change:index", tell);
    tell();
    await ready;
    const size = `${n_layer} layers, ${n_head} heads, ${n_embd} wide`;
    status.set("text", `Model: ${data.about.model}, ${parameters} parameters: ${size}.`);
  });
}

start();
