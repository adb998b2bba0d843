"use strict";
// How both pages ask the service.

const PATIENCE = 60_000; // milliseconds; the service itself gives up long before

/** Ask, and give {status, body, requestId, wait}; status 0 where there was no answer. The key is read and not kept. */
async function ask(method, path, body) {
  const headers = {};
  const key = document.getElementById("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response, text;
  try {
    // Relative, so that the service may lie below a path of a proxy's.
    const address = path.replace(/^\//, "") || ".";
    response = await fetch(address, {
      method, headers, body, cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE),
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

/** What a refusal means and what can be done about it. */
function inWords(answer) {
  const said = answer.body?.error ?? "";
  const later = answer.wait ? `Try again in ${answer.wait} ${answer.wait === "1" ? "second" : "seconds"}.` : "Try again in a moment.";
  const words = {
    0: "There was no answer. Check the connection, and whether the service is running.",
    401: "The API key is missing or not valid. Enter a valid key; whoever runs the service gives keys out.",
    429: `${said || "Too many requests."} ${later}`,
    503: `The service is busy or about to end. ${later}`,
    504: "The service took too long. Try again; if it stays so, tell whoever runs the service the request id.",
  };
  if (answer.status in words) return words[answer.status];
  if (answer.status >= 500) return "The service failed. Tell whoever runs it the request id.";
  return said || `The service refused with status ${answer.status}.`;
}

/** An element with text or other elements in it. */
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
