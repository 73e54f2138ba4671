// Small helpers around the DOM; every text goes in as text, so nothing a server says becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function put(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") node[name] = value;
    else node.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

export const h = (tag, props, ...children) => put(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => put(document.createElementNS(SVG, tag), props, children);

export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

let number = 0;
export const uniqueId = (prefix) => `${prefix}-${(number += 1)}`;

// A labelled control: label, control, and a hint that screen readers read with it.
export function field(label, control, hint) {
  const id = uniqueId("field");
  control.id = id;
  const note = hint ? h("p", { className: "hint", id: `${id}-hint` }, hint) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { className: "field" }, h("label", { for: id }, label), control, note);
}

// Tell screen readers: never the same thing twice in a row, and every second and a half at most unless `urgent`.
let announced = "";
let announcedAt = 0;
export function announce(text, urgent = false) {
  const now = performance.now();
  if (text === announced || (!urgent && now - announcedAt < 1500)) return;
  [announced, announcedAt] = [text, now];
  document.getElementById("announcer").textContent = text;
}

// Scroll to what has just appeared, if its beginning is not seen.
export function reveal(node) {
  const { top } = node.getBoundingClientRect();
  if (top >= 0 && top < innerHeight - 120) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  node.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
}

// A table whose first cell of each row is its heading. `stack`: in a narrow place every cell stands under its
// column's name, so that no column is cut off. The roles keep it a table for screen readers when it is stacked.
export function table({ name, caption, heads, stack = false }, rows) {
  return h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": name },
    h("table", { role: "table", className: stack ? "stacked" : null },
      caption ? h("caption", {}, caption) : null,
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" },
        heads.map((text) => h("th", { scope: "col", role: "columnheader" }, text)))),
      h("tbody", { role: "rowgroup" }, rows.map(([first, ...rest]) => h("tr", { role: "row" },
        h("th", { scope: "row", role: "rowheader" }, first),
        rest.map((cell, i) => h("td", {
          role: "cell", className: "number", "data-head": cell instanceof HTMLButtonElement ? null : heads[i + 1],
        }, cell)))))));
}

export function confirmed(question, action) {
  return new Promise((resolve) => {
    const title = uniqueId("title");
    const dialog = h("dialog", { "aria-labelledby": title },
      h("form", { method: "dialog" },
        h("p", { id: title }, question),
        h("div", { className: "row end" },
          h("button", { value: "no", className: "quiet" }, "Keep"),
          h("button", { value: "yes", className: "danger" }, action))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export const seconds = (value) => `${value.toFixed(1)} s`;
export const percent = (value) => `${(100 * value).toFixed(value < 0.01 ? 2 : 1)} %`;
export const millis = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
export const score = (value) => value.toFixed(3).replace("-", "−");

export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export function notice(kind, ...children) {
  return h("div", { className: `notice ${kind}`, role: kind === "error" ? "alert" : null }, ...children);
}
