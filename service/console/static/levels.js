// The picture of how loud the last seconds were. SVG, so that its colours are the page's, in every theme.

import { s } from "./dom.js";

const BARS = 120;
const TALL = 96;
const STEP = 6;
const QUIETEST_DB = -60;

export function levelPicture() {
  const bars = Array.from({ length: BARS }, (_, i) =>
    s("rect", { x: i * STEP, y: TALL / 2, width: STEP - 2, height: 0, class: "silence" }));
  const past = [];
  function draw() {
    bars.forEach((bar, i) => {
      const level = past[past.length - BARS + i];
      const height = level ? Math.max(2, ((level.db - QUIETEST_DB) / -QUIETEST_DB) * (TALL - 8)) : 0;
      bar.setAttribute("y", (TALL - height) / 2);
      bar.setAttribute("height", height);
      bar.setAttribute("class", level?.speaking ? "speech" : "silence");
    });
  }
  return {
    node: s("svg", { class: "levels", viewBox: `0 0 ${BARS * STEP} ${TALL}`, preserveAspectRatio: "none", "aria-hidden": "true" }, bars),
    add(db, speaking) {
      past.push({ db: Math.max(QUIETEST_DB, db), speaking });
      if (past.length > BARS) past.shift();
      draw();
    },
    clear() {
      past.length = 0;
      draw();
    },
  };
}
