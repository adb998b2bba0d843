"use strict";
// Calls to the service, shared by both pages.

const TIMEOUT = 60_000; // milliseconds; above the service's own default time limit

/** Call the service and return {status, text, body, requestId, wait}; status 0 means no response. The key is not stored. */
async function callService(method, path, body) {
  const headers = {};
  const key = document.getElementById("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response, text;
  try {
    // A relative address also works below a path prefix of a proxy.
    const address = path.replace(/^\//, "") || ".";
    response = await fetch(address, {
      method, headers, body, cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(TIMEOUT),
    });
    text = await response.text();
  } catch {
    return { status: 0, text: "", body: null, requestId: null, wait: null };
  }
  return {
    status: response.status,
    text,
    body: parsed(text),
    requestId: response.headers.get("X-Request-ID"),
    wait: response.headers.get("Retry-After"),
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Explain an error, and what the user can do about it. */
function explainError(answer) {
  const error = answer.body?.error ?? "";
  const later = answer.wait ? `Try again in ${answer.wait} ${answer.wait === "1" ? "second" : "seconds"}.` : "Try again in a moment.";
  const texts = {
    0: "No response. Check the connection and whether the service is running.",
    401: "The API key is missing or not valid. Enter a valid key. The operator of the service issues keys.",
    429: `${error || "Too many requests."} ${later}`,
    503: `The service is busy or shutting down. ${later}`,
    504: "The service took too long. Try again. If it happens again, give the request id to the operator of the service.",
  };
  if (answer.status in texts) return texts[answer.status];
  if (answer.status >= 500) return "The service failed. Give the request id to the operator of the service.";
  return error || `The service refused the request with status ${answer.status}.`;
}

/** Make an element with children. */
function element(name, properties, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  created.append(...children);
  return created;
}
