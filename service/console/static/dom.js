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
  const said = hint ? h("p", { className: "hint", id: `${id}-hint` }, hint) : null;
  if (said) control.setAttribute("aria-describedby", said.id);
  return h("div", { className: "field" }, h("label", { for: id }, label), control, said);
}

// Tell screen readers, at most once a second and never the same thing twice in a row.
let told = "";
let toldAt = 0;
export function announce(text, urgent = false) {
  const now = performance.now();
  if (text === told || (!urgent && now - toldAt < 1500)) return;
  [told, toldAt] = [text, now];
  document.getElementById("announcer").textContent = text;
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
