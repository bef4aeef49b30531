// Building nodes. Knows no API and no words.

/** el("a.big.red", {href: "…", onclick: f}, child, "text", …): text is always text. */
export function el(spec, props = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name in node && name !== "list") node[name] = value;
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...present(children));
  return node;
}

/** Replaces what a node holds; nothing and false are left out. */
export function fill(node, ...children) {
  node.replaceChildren(...present(children));
  return node;
}

const present = (children) => children.flat(Infinity)
  .filter((child) => child !== null && child !== undefined && child !== false && child !== "");

/** Calls `act` once things have been quiet for `ms`. */
export function quietly(ms, act) {
  let timer = null;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(act, ms, ...args);
  };
}

/** Runs `look` now and every `ms` while the page is seen, until `signal` ends it. */
export async function regularly(ms, look, signal) {
  while (!signal.aborted) {
    if (!document.hidden) await look();
    await new Promise((wake) => setTimeout(wake, ms));
  }
}
