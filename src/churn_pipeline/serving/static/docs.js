"use strict";
// The documentation page: fills this service's address into the curl commands, copies them, and sends the example requests.

const HERE = new URL(".", location.href).href.replace(/\/$/, "");

for (const code of document.querySelectorAll("code.curl")) {
  code.textContent = code.textContent.replace("http://localhost:3000", HERE);
}

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch { // browsers allow the clipboard only on https and localhost
      getSelection().selectAllChildren(code);
      button.textContent = "Selected: copy with Ctrl+C";
    }
  });
}

document.getElementById("access").addEventListener("submit", (event) => event.preventDefault());

for (const form of document.querySelectorAll("form.try")) {
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    const outcome = form.querySelector(".outcome");
    outcome.textContent = "Sending …";
    const answer = await callService(form.dataset.method, form.dataset.path, form.querySelector("textarea")?.value);
    const id = answer.requestId ? ` Request id ${answer.requestId}.` : "";
    const ok = answer.status >= 200 && answer.status < 300;
    outcome.textContent = ok ? `${answer.status}.${id}` : `${answer.status || "Error"}: ${explainError(answer)}${id}`;
    const reply = form.querySelector(".reply");
    reply.textContent = answer.body === null ? answer.text : JSON.stringify(answer.body, null, 2);
    reply.hidden = reply.textContent === "";
    busy = false;
  });
}
