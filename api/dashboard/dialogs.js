// Modal dialogs: they close with Escape, a click beside them, and give the focus back.

import { el } from "./dom.js";

let made = 0;

/** A modal dialog with a title; `close` ends it. It leaves the page when it is closed. */
export function dialog(title, kind, ...children) {
  made += 1;
  const heading = el("h2", { id: `dialog-${made}` }, title);
  const shut = el("button.ghost.icon", { type: "button", ariaLabel: "Close", title: "Close (Esc)",
    onclick: () => box.close() }, "✕");
  const box = el(`dialog.modal.${kind}`, { "aria-labelledby": heading.id },
    el("header", {}, heading, shut), ...children);
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

/** Whether a person wants it. */
export function confirmed(title, text, verb) {
  return new Promise((answer) => {
    const yes = el("button.danger.solid", { type: "button", onclick: () => { answer(true); box.close(); } }, verb);
    const no = el("button", { type: "button", onclick: () => box.close() }, "Keep it");
    const box = dialog(title, "small", el("p", {}, text), el("div.row.end", {}, no, yes));
    box.addEventListener("close", () => answer(false));
    no.focus();
  });
}
