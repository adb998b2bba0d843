"use strict";
// The form for one customer: what it sends, and how answers and refusals are shown. Nothing of it is stored.

const { fields, reasons: TOP } = JSON.parse(document.getElementById("form").textContent);
const places = new Map(fields.map((field, index) => [field.name, index]));
const labels = new Map(fields.map((field) => [field.name, field.label]));
const form = document.getElementById("customer");
const at = (id) => document.getElementById(id);
const input = (index) => at(`field-${index}`);
let busy = false;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy) return;
  busy = true;
  at("submit").setAttribute("aria-disabled", "true");
  clear();
  say("Asking the service …");
  try {
    await askForCustomer();
  } finally {
    busy = false;
    at("submit").removeAttribute("aria-disabled");
  }
});
form.addEventListener("reset", () => {
  const key = at("key").value;
  setTimeout(() => { at("key").value = key; }); // once the form is as it was: the key is no part of the customer
  clear();
  say("");
  changed();
});
form.addEventListener("input", (event) => { if (event.target.id !== "key") changed(); });

function changed() {
  at("stale").hidden = at("prediction").hidden;
}

function say(words) {
  at("progress").textContent = words;
}

// ---- what is sent

async function askForCustomer() {
  const { customer, problems } = read();
  if (problems.length) return refuse("The form holds what is no number.", problems);
  const answer = await ask("POST", "/explain", JSON.stringify({ customers: [customer], top: TOP }));
  if (answer.status !== 200) return refuseAnswer(answer);
  showPrediction(answer.body);
  showReasons(answer.body, customer);
}

/** The customer in the form. What is left empty is left out: the service says where that is not allowed. */
function read() {
  const customer = Object.create(null); // a column may have any name
  const problems = [];
  fields.forEach((field, index) => {
    const { value, validity } = input(index);
    if (validity.badInput) problems.push({ field: field.name, rule: field.rule });
    else if (value.trim() === "") return;
    else if (field.kind === "choice") customer[field.name] = field.choices[Number(value)];
    else customer[field.name] = field.kind === "number" ? Number(value) : value;
  });
  return { customer, problems };
}

// ---- what is refused

function clear() {
  at("problems").hidden = true;
  at("problems").replaceChildren();
  for (const hint of form.querySelectorAll(".error")) {
    hint.hidden = true;
    hint.textContent = "";
  }
  for (const one of form.querySelectorAll("[aria-invalid]")) one.removeAttribute("aria-invalid");
}

function hideAnswer() {
  for (const id of ["prediction", "reasons", "request-id"]) at(id).hidden = true;
  at("no-answer").hidden = false;
}

function refuseAnswer(answer) {
  const problems = answer.body?.problems ?? [];
  const requestId = answer.body?.request_id ?? answer.requestId;
  if (answer.status === 401) markWrong("key", "Needs a valid key.");
  refuse(inWords(answer), problems, requestId, answer.body?.problem_count, answer.status === 401);
}

/** Say at the top what was refused, with the way to each field, and at each field what it needs; take the person there. */
function refuse(message, problems, requestId, count = problems.length, isKey = false) {
  hideAnswer();
  say("");
  const items = problems.map(({ field, rule }) => {
    const index = places.get(field);
    const words = needs(rule);
    if (index === undefined) return element("li", {}, field ? `${field}: ${words}` : `The customer ${words}`);
    markWrong(`field-${index}`, `${words[0].toUpperCase()}${words.slice(1)}.`);
    return element("li", {}, linkTo(`field-${index}`, labels.get(field)), `: ${words}`);
  });
  if (isKey) items.push(element("li", {}, linkTo("key", "API key")));
  const title = problems.length ? `${message} ${count === 1 ? "One problem" : `${count} problems`}:` : message;
  const summary = at("problems");
  summary.replaceChildren(element("h3", {}, title));
  if (items.length) summary.append(element("ul", {}, ...items));
  if (requestId) summary.append(element("p", { className: "hint" }, "Request id, for support: ", element("code", {}, requestId)));
  summary.hidden = false;
  summary.focus();
}

function needs(rule) {
  if (rule === "required") return "needs a value";
  return rule === "not in the contract" ? "is not in the contract" : `needs ${rule}`;
}

function linkTo(id, words) {
  const link = element("a", { href: `#${id}` }, words);
  link.addEventListener("click", (event) => { event.preventDefault(); at(id).focus(); });
  return link;
}

function markWrong(id, words) {
  at(id).setAttribute("aria-invalid", "true");
  at(`${id}-error`).textContent = words;
  at(`${id}-error`).hidden = false;
}

// ---- what is answered

const DECISIONS = { contact: "Contact this customer", leave: "Leave this customer alone" };

/** A share in percent; enough digits that it does not look like another one which it is not. */
function percent(share, other = share) {
  let digits = 1;
  while (share !== other && digits < 9 && (100 * share).toFixed(digits) === (100 * other).toFixed(digits)) digits += 1;
  return `${(100 * share).toFixed(digits)} %`;
}

function points(effect) {
  const shown = (100 * Math.abs(effect)).toFixed(1);
  if (shown === "0.0") return effect === 0 ? "0.0" : `${effect > 0 ? "+" : "−"}<0.1`;
  return `${effect > 0 ? "+" : "−"}${shown}`;
}

function showPrediction({ predictions: [prediction], threshold, model_version: version, request_id: id }) {
  const probability = prediction.churn_probability;
  const contacted = prediction.decision === "contact";
  at("no-answer").hidden = true;
  at("stale").hidden = true;
  at("decision").textContent = DECISIONS[prediction.decision] ?? prediction.decision;
  at("decision").classList.toggle("contact", contacted);
  at("probability").textContent = percent(probability, threshold);
  at("probability").dataset.value = probability;
  at("probability-bar").style.width = `${100 * probability}%`;
  at("probability-bar").classList.toggle("contact", contacted);
  const place = 100 * Math.min(1, Math.max(0, threshold));
  at("threshold-mark").style.left = `${place}%`;
  at("threshold-words").textContent = `threshold ${percent(threshold, probability)}`;
  at("threshold-words").style.left = `${place}%`;
  at("threshold-words").style.translate = `-${place}%`;
  const side = contacted ? "at or above" : "below";
  at("comparison").textContent =
    `${prediction.id === undefined ? "The customer" : `Customer “${prediction.id}”`} is ${side} the threshold of ` +
    `${percent(threshold, probability)}, says version ${version} of the model.`;
  at("prediction").hidden = false;
  at("request-id").querySelector("code").textContent = id;
  at("request-id").hidden = false;
  say(`Churn probability ${percent(probability, threshold)}. ${at("decision").textContent}.`);
  const box = at("answer").getBoundingClientRect();
  if (box.top < 0 || box.top > window.innerHeight / 2) {
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    at("answer").scrollIntoView({ behavior: calm ? "auto" : "smooth" });
  }
}

/** From the base probability to the customer's, one bar a feature, each from where the last one ended. */
function showReasons(answer, customer) {
  const { reasons, churn_probability: probability } = answer.predictions[0];
  const base = answer.base_probability;
  const steps = reasons.map(({ feature, effect }) => ({ words: labels.get(feature) ?? feature, value: shownValue(feature, customer), effect }));
  const told = reasons.reduce((sum, { effect }) => sum + effect, 0);
  if (Math.abs(probability - base - told) >= 0.0005) {
    steps.push({ words: "All other features", value: "", effect: probability - base - told });
  }
  let from = base;
  for (const step of steps) {
    step.from = from;
    from = step.to = from + step.effect;
  }
  const high = Math.max(base, probability, ...steps.map(({ to }) => to), 1e-9);
  const scaled = (share) => (100 * Math.max(0, share)) / high;
  at("reason-rows").replaceChildren(
    row("Average customer", "", percent(base), bar(0, scaled(base), "whole"), "total"),
    ...steps.map(({ words, value, effect, from, to }) =>
      row(words, value, points(effect), bar(scaled(from), scaled(to), effect > 0 ? "up" : "down"), "")),
    row("This customer", "", percent(probability), bar(0, scaled(probability), "whole"), "total"),
  );
  at("reasons").hidden = false;
}

function shownValue(feature, customer) {
  const value = customer[feature];
  if (value === undefined) return "missing";
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function row(words, value, number, picture, kind) {
  const name = element("th", { scope: "row" }, words);
  if (value !== "") name.append(element("span", { className: "value" }, value));
  return element("tr", { className: kind }, name, element("td", { className: "number" }, number), element("td", { className: "picture" }, picture));
}

function bar(from, to, kind) {
  const fill = element("div", { className: `fill ${kind}` });
  fill.style.left = `${Math.min(from, to)}%`;
  fill.style.width = `${Math.abs(to - from)}%`;
  const track = element("div", { className: "track" }, fill);
  track.setAttribute("aria-hidden", "true");
  return track;
}
