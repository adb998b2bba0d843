"use strict";
// The form for one customer: sends it to the service, and shows the prediction or the errors. It stores nothing.

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
  setProgress("Scoring …");
  try {
    await scoreCustomer();
  } finally {
    busy = false;
    at("submit").removeAttribute("aria-disabled");
  }
});
form.addEventListener("reset", () => {
  const key = at("key").value;
  setTimeout(() => { at("key").value = key; }); // after the reset, which should not clear the key
  clear();
  setProgress("");
  markStale();
});
form.addEventListener("input", (event) => { if (event.target.id !== "key") markStale(); });

function markStale() {
  at("stale").hidden = at("prediction").hidden;
}

function setProgress(text) {
  at("progress").textContent = text;
}

// ---- the request

async function scoreCustomer() {
  const { customer, problems } = read();
  if (problems.length) return showErrors("Some values are not numbers.", problems);
  const answer = await callService("POST", "/explain", JSON.stringify({ customers: [customer], top: TOP }));
  if (answer.status !== 200) return showRefusal(answer);
  showPrediction(answer.body);
  showReasons(answer.body, customer);
}

/** Read the customer from the form. Empty fields are left out; the service reports those that are required. */
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

// ---- errors

function clear() {
  at("problems").hidden = true;
  at("problems").replaceChildren();
  for (const hint of form.querySelectorAll(".error")) {
    hint.hidden = true;
    hint.textContent = "";
  }
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

function hideAnswer() {
  for (const id of ["prediction", "reasons", "request-id"]) at(id).hidden = true;
  at("no-answer").hidden = false;
}

function showRefusal(answer) {
  const problems = answer.body?.problems ?? [];
  const requestId = answer.body?.request_id ?? answer.requestId;
  if (answer.status === 401) markInvalid("key", "Needs a valid key.");
  showErrors(explainError(answer), problems, requestId, answer.body?.problem_count, answer.status === 401);
}

/** Show a summary with links to the invalid fields, mark each of them, and move the focus to the summary. */
function showErrors(message, problems, requestId, count = problems.length, isKey = false) {
  hideAnswer();
  setProgress("");
  const items = problems.map(({ field, rule }) => {
    const index = places.get(field);
    const text = needs(rule);
    if (index === undefined) return element("li", {}, field ? `${field}: ${text}` : `The customer ${text}`);
    markInvalid(`field-${index}`, `${text[0].toUpperCase()}${text.slice(1)}.`);
    return element("li", {}, linkTo(`field-${index}`, labels.get(field)), `: ${text}`);
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

function linkTo(id, text) {
  const link = element("a", { href: `#${id}` }, text);
  link.addEventListener("click", (event) => { event.preventDefault(); at(id).focus(); });
  return link;
}

function markInvalid(id, text) {
  at(id).setAttribute("aria-invalid", "true");
  at(`${id}-error`).textContent = text;
  at(`${id}-error`).hidden = false;
}

// ---- the prediction

const DECISIONS = { contact: "Contact this customer", no_contact: "Do not contact this customer" };

/** A share in percent, with enough digits to differ from another share. */
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
  const byValue = prediction.threshold_basis === "customer_value";
  at("threshold-mark").hidden = at("threshold-words").hidden = byValue;
  const place = 100 * Math.min(1, Math.max(0, threshold));
  at("threshold-mark").style.left = `${place}%`;
  at("threshold-words").textContent = `threshold ${percent(threshold, probability)}`;
  at("threshold-words").style.left = `${place}%`;
  at("threshold-words").style.translate = `-${place}%`;
  const name = prediction.id === undefined ? "The customer" : `Customer “${prediction.id}”`;
  const side = contacted ? "at or above" : "below";
  const limit = byValue
    ? "the break-even threshold of its own value"
    : `the threshold of ${percent(threshold, probability)}${prediction.threshold_basis === "mean_value" ? " for customers without a known value" : ""}`;
  at("comparison").textContent = `${name} is ${side} ${limit} (model version ${version}).`;
  at("prediction").hidden = false;
  at("request-id").querySelector("code").textContent = id;
  at("request-id").hidden = false;
  setProgress(`Churn probability ${percent(probability, threshold)}. ${at("decision").textContent}.`);
  const box = at("answer").getBoundingClientRect();
  if (box.top < 0 || box.top > window.innerHeight / 2) {
    const reduced = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    at("answer").scrollIntoView({ behavior: reduced ? "auto" : "smooth" });
  }
}

/** A waterfall chart from the base probability to the customer's: each bar starts where the previous one ends. */
function showReasons(answer, customer) {
  const { reasons, churn_probability: probability } = answer.predictions[0];
  const base = answer.base_probability;
  const steps = reasons.map(({ feature, effect }) => ({ label: labels.get(feature) ?? feature, value: shownValue(feature, customer), effect }));
  const total = reasons.reduce((sum, { effect }) => sum + effect, 0);
  if (Math.abs(probability - base - total) >= 0.0005) {
    steps.push({ label: "All other features", value: "", effect: probability - base - total });
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
    ...steps.map(({ label, value, effect, from, to }) =>
      row(label, value, points(effect), bar(scaled(from), scaled(to), effect > 0 ? "up" : "down"), "")),
    row("This customer", "", percent(probability), bar(0, scaled(probability), "whole"), "total"),
  );
  at("reasons").hidden = false;
}

function shownValue(feature, customer) {
  const value = customer[feature];
  if (value === undefined) return "missing";
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function row(label, value, number, picture, kind) {
  const name = element("th", { scope: "row" }, label);
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
